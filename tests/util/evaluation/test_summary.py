"""Metrics per fold and pooled, and the printed table."""

import pytest

from util.evaluation.predictions import Prediction
from util.evaluation.summary import format_summary, pooled_metrics, summarise
from util.statistics.metrics import classification_metrics

PREDICTIONS = [
    Prediction("=1+1", 0, 1, 0.9), Prediction("b", 0, 0, 0.2), Prediction("c", 0, 0, 0.6),
    Prediction("d", 1, 1, 0.7), Prediction("e", 1, 0, 0.1),
]  # fmt: skip


def summary(**kwargs):
    return summarise(PREDICTIONS, **{"label_type": "IDH", "n_unknown": 3, "k_fold": 3, **kwargs})


def test_pooled_and_per_fold_metrics():
    found = summary()
    assert found["pooled"] == classification_metrics([1, 0, 0, 1, 0], [0.9, 0.2, 0.6, 0.7, 0.1])
    assert [row["n"] for row in found["per_fold"]] == [3, 2]
    assert found["mean"]["accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["sd"]["accuracy"] == pytest.approx(abs(2 / 3 - 1) / 2**0.5)
    assert found["missing_folds"] == [2]


def test_repeats_are_averaged_and_subjects_counted_once():
    again = [Prediction(p.subject, p.fold + 3, p.label, 1 - p.probability, 1) for p in PREDICTIONS]
    found = summarise([*PREDICTIONS, *again], label_type="IDH", n_unknown=0, k_fold=3, repeats=2)
    assert (found["n"], found["n_positive"], found["missing_folds"]) == (5, 2, [2, 5])
    assert found["pooled"]["auc"] == pytest.approx(0.5)


def test_thresholds_decide():
    moved = [Prediction("a", 0, 1, 0.3, threshold=0.25), Prediction("b", 0, 0, 0.4, threshold=0.45)]
    assert pooled_metrics(moved)["accuracy"] == 1


def test_a_fold_of_one_class_says_na():
    rows = [Prediction("a", 0, 0, 0.1), Prediction("b", 1, 1, 0.9)]
    text = format_summary(summarise(rows, label_type="IDH", n_unknown=0, k_fold=2))
    assert "n/a" in text
    assert "nan" not in text


def test_the_table_says_what_was_left_out():
    text = format_summary(summary())
    assert "5 subjects (2 positive), 3 of unknown label left out" in text
    assert "folds that have not run: 2" in text
