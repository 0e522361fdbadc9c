import numpy as np
import pytest

from tests.helpers.egd_sheet import write_egd_sheet
from util.data.labels import read_labels
from util.evaluation.baselines import confounder_columns, logistic_baseline, majority_baseline, sheet_tables
from util.evaluation.predictions import Prediction, arrange
from util.evaluation.summary import pooled_metrics
from util.protocol.folds import make_folds, set_aside
from util.statistics.bootstrap import point_metrics
from util.statistics.delong import delong_interval

LABELS = {f"s{i:02d}": int(i % 3 == 0) for i in range(30)}
FOLDS = make_folds(LABELS, 5, seed=0)


def of_model(folds, labels, k=5):
    return [
        Prediction(subject, number, labels[subject], 0.5, number // k)
        for number, fold in enumerate(folds)
        for subject in fold["test"]
    ]


PREDICTIONS = of_model(FOLDS, LABELS)


def test_majority_is_the_larger_class_and_ranks_nobody():
    found = pooled_metrics(majority_baseline(LABELS, PREDICTIONS).predictions)
    assert found["accuracy"] == pytest.approx(20 / 30)
    assert found["auc"] == found["balanced_accuracy"] == 0.5


def test_a_column_that_tells_the_label_is_found_and_noise_is_not():
    generator = np.random.default_rng(0)
    telling = {s: {"x": label + 0.1 * generator.normal()} for s, label in LABELS.items()}
    noise = {s: {"x": generator.normal()} for s in LABELS}
    aucs = [
        pooled_metrics(logistic_baseline("x", table, LABELS, PREDICTIONS, FOLDS).predictions)["auc"]
        for table in (telling, noise)
    ]
    assert aucs[0] == 1
    assert aucs[1] < 0.75


def test_held_out_subjects_never_shape_their_own_prediction():
    table = {s: {"x": float(i)} for i, s in enumerate(LABELS)}
    first = logistic_baseline("x", table, LABELS, PREDICTIONS, FOLDS).predictions
    held_out = FOLDS[0]["test"][0]
    flipped = {**LABELS, held_out: 1 - LABELS[held_out]}
    table_too = {**table, FOLDS[0]["test"][1]: {"x": 1e6}}
    again = logistic_baseline("x", table_too, flipped, PREDICTIONS, FOLDS).predictions
    same = [p.subject for p in first if p.fold == 0 and p.subject not in FOLDS[0]["test"][:2]]
    kept = {p.subject: p.probability for p in first}
    assert all(p.probability == pytest.approx(kept[p.subject]) for p in again if p.subject in same)


def test_the_validation_part_is_trained_on_too():
    table = {s: {"x": float(i)} for i, s in enumerate(LABELS)}
    plain = logistic_baseline("x", table, LABELS, PREDICTIONS, FOLDS).predictions
    assert logistic_baseline("x", table, LABELS, PREDICTIONS, set_aside(FOLDS, LABELS, 0.2, 0)).predictions == plain


def test_only_subjects_with_a_known_feature_take_part():
    table = {s: {"x": float(LABELS[s]), "y": float("nan")} for s in list(LABELS)[:20]}
    found = logistic_baseline("x", table, LABELS, PREDICTIONS, FOLDS)
    assert sorted(p.subject for p in found.predictions) == list(LABELS)[:20]
    assert pooled_metrics(found.predictions)["auc"] == 1
    one_class = {s: {"x": 1.0} for s, label in LABELS.items() if label}
    shares = {p.probability for p in logistic_baseline("x", one_class, LABELS, PREDICTIONS, FOLDS).predictions}
    assert shares == {1.0}


def test_sheet_columns_become_features():
    columns = {"Sex": {"a": "F", "b": "m", "c": ""}, "Age": {"a": "61", "b": "40.5"}, "Grade": {"a": "4", "b": "4"}}
    tables = sheet_tables(columns)
    assert tables["sex"] == {"a": {"sex m": 0.0}, "b": {"sex m": 1.0}}
    assert tables["age"] == {"a": {"age": 61.0}, "b": {"age": 40.5}}
    assert "grade" not in tables  # the same for everyone
    assert tables["sex, age"]["b"] == {"sex m": 1.0, "age": 40.5}


@pytest.mark.parametrize(
    ("label_type", "known", "positives", "majority", "graded", "grade_auc"),
    [("IDH", 467, 155, 0.668, 415, 0.944), ("1p19q", 259, 73, 0.718, 235, 0.731)],
)
def test_egd_counts_and_what_grade_alone_does(tmp_path, label_type, known, positives, majority, graded, grade_auc):
    names = write_egd_sheet(tmp_path / "egd.xlsx")
    labels = {s: label for s, label in read_labels(tmp_path / "egd.xlsx", label_type, names).items() if label != -1}
    assert (len(names), len(labels), sum(labels.values())) == (774, known, positives)
    folds = make_folds(labels, 5, seed=0, repeats=2)
    predictions = of_model(folds, labels)
    found = pooled_metrics(majority_baseline(labels, predictions).predictions)
    assert found["accuracy"] == pytest.approx(majority, abs=5e-4)
    table = sheet_tables(confounder_columns(tmp_path / "egd.xlsx"))["grade"]
    scores = arrange(logistic_baseline("grade", table, labels, predictions, folds).predictions)
    assert scores.probabilities_RS.shape == (2, graded)
    assert point_metrics(scores)["auc"] == pytest.approx(grade_auc, abs=0.02)  # folds differ in their intercepts
    by_grade = [Prediction(s, 0, labels[s], 1 - row["grade"] / 4) for s, row in table.items() if s in labels]
    assert delong_interval(arrange(by_grade)).auc == pytest.approx(grade_auc, abs=5e-4)
