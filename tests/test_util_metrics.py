import math

import pytest

from util.metrics import classification_metrics


def test_hand_computed_case():
    metrics = classification_metrics([1, 1, 1, 0, 0], [0.9, 0.6, 0.3, 0.7, 0.1])  # tp 2, fn 1, fp 1, tn 1
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["sensitivity"] == pytest.approx(2 / 3)
    assert metrics["specificity"] == pytest.approx(1 / 2)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["auc"] == pytest.approx(4 / 6)  # ordered pairs: .9>.7 .9>.1 .6>.1 .3>.1 of six


def test_an_absent_class_is_defined():
    metrics = classification_metrics([0, 0], [0.2, 0.8])
    assert math.isnan(metrics["auc"])
    assert math.isnan(metrics["sensitivity"])
    assert metrics["specificity"] == 0.5
    assert metrics["f1"] == 0


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 labels and 1"):
        classification_metrics([0, 1], [0.5])
