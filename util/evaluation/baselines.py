"""Baselines without an image model: the majority class, and logistic regressions on simple features.

They are fitted in the same folds as the model. A column of the label sheet that predicts as well as the model may be a
confounder.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from util.data.dataset import PreparedVolumes
from util.data.folder import BadVolume
from util.data.image_features import intensity_features, tumour_features
from util.data.labels import column_names, read_columns
from util.evaluation.predictions import Prediction
from util.protocol.folds import Fold
from util.statistics.logistic_regression import RidgeLogistic
from util.statistics.metrics import THRESHOLD

CONFOUNDERS = ("age", "sex", "gender", "grade")  # columns of a label sheet, in any case
FeatureTable = dict[str, dict[str, float]]  # {subject: {feature: value or NaN}}


@dataclass(frozen=True)
class Baseline:
    """Held-out predictions of a simple model, for the subjects whose features are known."""

    name: str
    features: list[str]
    predictions: list[Prediction]


def majority_baseline(labels: Mapping[str, int], predictions: Sequence[Prediction]) -> Baseline:
    """The most frequent class of the cohort, 0 or 1, for every subject and in every fold."""
    constant = float(sum(labels.values()) > len(labels) / 2)
    return Baseline("majority class", [], [replace(p, probability=constant, threshold=THRESHOLD) for p in predictions])


def logistic_baseline(
    name: str, table: FeatureTable, labels: Mapping[str, int], predictions: Sequence[Prediction], folds: Sequence[Fold]
) -> Baseline:
    """L2 logistic regression (C = 1) on standardised features, fitted on each fold's training part.

    Only subjects with a known feature are used; their missing features become the mean of the training part.
    predictions: those of the model, which give the folds and subjects to predict.
    """
    features = sorted({feature for row in table.values() for feature in row})
    known = {subject for subject in labels if any(not math.isnan(value) for value in table.get(subject, {}).values())}

    def matrix(subjects: Sequence[str]) -> np.ndarray:
        rows = [[table[subject].get(feature, math.nan) for feature in features] for subject in subjects]
        return np.array(rows, dtype=float)

    def fitted(fold: Fold) -> dict[str, float]:
        training, test = ([s for s in part if s in known] for part in (training_subjects(fold), fold["test"]))
        classes = [labels[subject] for subject in training]
        if len(set(classes)) < 2:  # nothing to fit: predict the fraction of class 1
            return dict.fromkeys(test, float(np.mean(classes)) if classes else 0.5)
        imputer = SimpleImputer(keep_empty_features=True)
        model = make_pipeline(imputer, StandardScaler(), RidgeLogistic())
        model.fit(matrix(training), classes)
        return dict(zip(test, model.predict_proba(matrix(test))[:, 1].tolist())) if test else {}

    return Baseline(name, features, _in_folds([p for p in predictions if p.subject in known], folds, fitted))


def sheet_tables(sheet_columns: Mapping[str, Mapping[str, str]]) -> dict[str, FeatureTable]:
    """{name of a baseline: its features} from columns of a label sheet: each column alone, and all of them.

    Numbers are used as they are. In a column of words, every word but the first becomes a feature of 0 and 1.
    """
    single = {name.lower(): _column_table(name.lower(), texts) for name, texts in sheet_columns.items()}
    tables = {name: table for name, table in single.items() if table}
    if len(tables) > 1:
        subjects = sorted({subject for table in tables.values() for subject in table})
        tables[", ".join(tables)] = {
            subject: {k: v for table in tables.values() for k, v in table.get(subject, {}).items()}
            for subject in subjects
        }
    return tables


def image_tables(volumes: PreparedVolumes) -> dict[str, FeatureTable]:
    """Tumour volume and location (of subjects with a segmentation) and intensities. Every volume is read.

    With --on_bad_volume skip, subjects whose volumes cannot be used are left out.
    """
    tumour, intensity = {}, {}
    for subject in volumes.subjects:
        with suppress(BadVolume) if volumes.on_bad_volume == "skip" else nullcontext():
            tumour[subject] = tumour_features(volumes, subject)
            intensity[subject] = intensity_features(volumes, subject)
    known = any(not math.isnan(row["volume"]) for row in tumour.values())
    return {**({"tumour volume and location": tumour} if known else {}), "intensity": intensity}


def confounder_columns(sheet: Path) -> dict[str, dict[str, str]]:
    """{column: {subject: text}} of the columns of a label sheet that are in CONFOUNDERS."""
    names = [name for name in column_names(sheet) if name.lower() in CONFOUNDERS]
    return read_columns(sheet, names) if names else {}


def training_subjects(fold: Fold) -> list[str]:
    """The subjects of the training and validation parts: a baseline selects nothing, so that it may use both."""
    return sorted([*fold["train"], *fold.get("val", [])])


def _column_table(name: str, texts: Mapping[str, str]) -> FeatureTable:
    known = {subject: text for subject, text in texts.items() if text}
    try:
        values = {subject: {name: float(text)} for subject, text in known.items()}
    except ValueError:
        words = sorted({text.lower() for text in known.values()})
        values = {subject: {f"{name} {word}": float(text.lower() == word) for word in words[1:]}
                  for subject, text in known.items()}  # fmt: skip
    features = {feature for row in values.values() for feature in row}
    constant = {feature for feature in features if len({row[feature] for row in values.values()}) < 2}
    return {} if features == constant else values


def _in_folds(
    predictions: Sequence[Prediction], folds: Sequence[Fold], predict_fold: Callable[[Fold], Mapping[str, float]]
) -> list[Prediction]:
    """The model's predictions with the probabilities of `predict_fold` and the threshold 0.5 in place of its own."""
    probability = {fold: predict_fold(folds[fold]) for fold in sorted({p.fold for p in predictions})}
    return [replace(p, probability=probability[p.fold][p.subject], threshold=THRESHOLD) for p in predictions]
