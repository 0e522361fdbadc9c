"""The end of a cross-validation: predictions of all folds that exist and of baselines become files and tables."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from util.data.dataset import PreparedVolumes
from util.data.labels import column_names, read_columns
from util.evaluation.baselines import (
    Baseline,
    confounder_columns,
    image_tables,
    logistic_baseline,
    majority_baseline,
    sheet_tables,
)
from util.evaluation.predictions import Prediction, read_predictions
from util.evaluation.results_file import evaluate, format_statistics, write_results
from util.evaluation.summary import format_summary, summarise
from util.protocol.division import Division
from util.run_folder import PREDICTIONS, RAW_PREDICTIONS, RESULTS, fold_folders

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BaselineData:
    """What baselines are fitted to. volumes: those that the model reads. images: the same without --control."""

    images: PreparedVolumes
    volumes: PreparedVolumes
    sheet: Path
    division: Division
    extent: Literal["all", "sheet", "none"]


def gather_results(
    folder: Path, data: BaselineData, label_type: str, n_unknown: int, protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Evaluate the predictions of all folds of a run folder, whichever job made them; results.json's content."""
    predictions = predictions_of_folds(folder, PREDICTIONS)
    raw = predictions_of_folds(folder, RAW_PREDICTIONS)
    division = data.division
    summary = summarise(
        predictions, label_type=label_type, n_unknown=n_unknown, k_fold=division.k_fold, repeats=division.repeats
    )
    results = evaluate(
        summary,
        predictions,
        baselines=[Baseline("its raw weights, not averaged", [], raw), *baselines_of(predictions, data)],
        subgroups=subgroups(data.sheet, label_type),
        protocol=protocol,
    )
    write_results(folder, predictions, results)
    logger.info("%s", format_summary(summary))
    logger.info("%s", format_statistics(results))
    logger.info("results: %s", folder / RESULTS)
    return results


def predictions_of_folds(folder: Path, name: str) -> list[Prediction]:
    """The predictions in the files of this name, of all folds that have one."""
    files = [part / name for part in fold_folders(folder).values()]
    return [prediction for file in files if file.exists() for prediction in read_predictions(file)]


def baselines_of(predictions: Sequence[Prediction], data: BaselineData) -> list[Baseline]:
    """Majority class, columns of the label sheet, tumour volume and location, intensities: in the model's folds."""
    if data.extent == "none":
        return []
    labels = {subject: data.volumes.label(subject) for subject in data.volumes.subjects}
    tables = sheet_tables(confounder_columns(data.sheet))
    if data.extent == "all":
        tables |= image_tables(data.images)
    folds = data.division.folds
    fitted = [logistic_baseline(name, table, labels, predictions, folds) for name, table in tables.items()]
    return [majority_baseline(labels, predictions), *fitted]


def subgroups(sheet: Path, label_type: str) -> dict[str, list[str]]:
    """Parts of the cohort in which the task has no shortcut: 1p/19q within IDH mutants, as every co-deleted tumour is
    IDH mutant."""
    if label_type != "1p19q" or "IDH" not in column_names(sheet):
        return {}
    idh = read_columns(sheet, ["IDH"])["IDH"]
    return {"within IDH mutant": [subject for subject, text in idh.items() if text == "1"]}
