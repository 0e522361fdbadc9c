import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from util.statistics.metrics import METRICS, calibration_bins, classification_metrics, expected_calibration_error


def test_hand_computed_case():
    metrics = classification_metrics([1, 1, 1, 0, 0], [0.9, 0.6, 0.3, 0.7, 0.1])  # tp 2, fn 1, fp 1, tn 1
    assert tuple(metrics) == METRICS
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["sensitivity"] == pytest.approx(2 / 3)
    assert metrics["specificity"] == pytest.approx(1 / 2)
    assert metrics["balanced_accuracy"] == pytest.approx(7 / 12)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["auc"] == pytest.approx(4 / 6)  # ordered pairs: .9>.7 .9>.1 .6>.1 .3>.1 of six
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)  # precision at each positive
    assert metrics["brier"] == pytest.approx((0.01 + 0.16 + 0.49 + 0.49 + 0.01) / 5)


def test_brier_agrees_with_sklearn():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 50), generator.random(50)
    assert classification_metrics(labels, scores)["brier"] == pytest.approx(brier_score_loss(labels, scores))


def test_calibration_error_by_hand():
    scores = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    labels = np.array([0, 1, 1, 1, 1])  # first bin: observed 0.5 against 0.05; last: 1 against 2.9 / 3
    assert expected_calibration_error(labels, scores) == pytest.approx((2 * 0.45 + 3 * (0.1 / 3)) / 5)
    assert calibration_bins(np.array([0.0, 0.0999, 0.1, 0.95, 1.0])).tolist() == [0, 0, 1, 9, 9]


def test_thresholds_per_subject_change_predicted_classes_and_not_ranks():
    labels, scores = [1, 1, 0, 0], [0.4, 0.8, 0.3, 0.6]
    plain, moved = (classification_metrics(labels, scores, t) for t in (0.5, np.array([0.35, 0.5, 0.35, 0.7])))
    assert plain["accuracy"] == 0.5
    assert moved["accuracy"] == 1
    assert plain["auc"] == moved["auc"]


def test_an_absent_class_is_defined():
    metrics = classification_metrics([0, 0], [0.2, 0.8])
    for name in ("auc", "average_precision", "sensitivity", "balanced_accuracy"):
        assert math.isnan(metrics[name]), name
    assert metrics["specificity"] == 0.5
    assert metrics["f1"] == 0
    assert math.isnan(classification_metrics([0, 0], [0.2, 0.1])["f1"])  # nothing called, nothing to find


def test_a_class_that_is_never_right_has_the_rate_zero():
    metrics = classification_metrics([1, 1, 0, 0], [0.2, 0.3, 0.8, 0.9])
    for name in ("sensitivity", "specificity", "balanced_accuracy", "f1", "accuracy"):
        assert metrics[name] == 0, name


def test_at_the_threshold_the_predicted_class_is_1():
    metrics = classification_metrics([1, 0], [0.5, 0.49])
    assert (metrics["sensitivity"], metrics["specificity"]) == (1, 1)
    assert classification_metrics([1, 0], [0.3, 0.2], 0.3)["accuracy"] == 1


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 labels and 1"):
        classification_metrics([0, 1], [0.5])
    with pytest.raises(ValueError, match="1 labels and 2"):
        classification_metrics([0], [0.5, 0.6])
    with pytest.raises(ValueError, match="0 labels and 0"):
        classification_metrics([], [])
    assert classification_metrics([0], [0.4])["accuracy"] == 1
