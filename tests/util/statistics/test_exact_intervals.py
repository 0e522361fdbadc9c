import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tests.helpers.score_cases import scores
from util.statistics.exact_intervals import (
    Z95,
    auc_interval,
    extreme_interval,
    has_extremes,
    proportion_interval,
    sum_interval,
)
from util.statistics.metrics import METRICS


def deviations(area, positives, negatives):
    """1 - area in standard errors of the area, written as in Newcombe 2006: method 5, from Hanley & McNeil 1982."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    star = (positives + negatives) / 2 - 1
    variance = (area * (1 - area) + star * (q1 - area**2) + star * (q2 - area**2)) / (positives * negatives)
    return (1 - area) / math.sqrt(variance)


@given(st.integers(1, 400), st.integers(1, 400))
def test_the_bound_of_the_auc_lies_1_96_of_its_own_errors_from_one(positives, negatives):
    low, high = auc_interval(1.0, positives, negatives)
    assert high == 1
    assert deviations(low, positives, negatives) == pytest.approx(Z95, rel=1e-6)
    assert auc_interval(0.0, positives, negatives) == (0, 1 - low)
    assert low < auc_interval(1.0, positives + 1, negatives)[0]


@pytest.mark.parametrize("n", [1, 7, 300])
def test_proportions_agree_with_scipys_wilson_interval(n):
    for value in (0, 1):
        expected = binomtest(value * n, n).proportion_ci(method="wilson")
        assert proportion_interval(value, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_difference_is_as_uncertain_as_both_terms():
    low, high = sum_interval((1, -1), (1.0, 0.6), [(0.9, 1.0), (0.4, 0.7)])
    assert (low, high) == pytest.approx((0.4 - math.hypot(0.1, 0.1), 0.4 + 0.2))
    assert sum_interval((1, -1), (1.0, 0.5), [(0.9, 1.0), (0.5, 0.5)]) == pytest.approx((0.4, 0.5))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_every_metric_has_an_interval_that_holds_it_and_narrows_with_the_sample(metric, value):
    widths = []
    for size in (5, 50):
        labels = np.repeat([1, 0], [size, 2 * size])
        low, high = extreme_interval(metric, value, scores(labels, np.full(3 * size, 0.5)))
        assert 0 <= low <= value <= high <= 1
        widths.append(high - low)
    assert 0 < widths[1] < widths[0] < 1


def test_every_metric_counts_the_right_patients():
    """7 patients of class 1, 4 of class 0 with two subjects each."""
    labels, patients = np.repeat([1, 0], [7, 8]), [*"abcdefg", *"ppqqrrss"]
    sample = scores(labels, np.full(15, 0.5), patients=patients)
    sizes = {"accuracy": 11, "sensitivity": 7, "average_precision": 7, "specificity": 4, "brier": 11, "ece": 11}
    for metric, n in sizes.items():
        assert extreme_interval(metric, 1.0, sample) == proportion_interval(1.0, n), metric
    assert extreme_interval("auc", 1.0, sample) == auc_interval(1.0, 7, 4)


def test_extremes_are_announced():
    assert has_extremes({"auc": {"value": 0.9}, "f1": {"value": 1.0}})
    assert has_extremes({"auc": {"value": 0.9}, "sensitivity": {"value": 0.0}})
    assert not has_extremes({"auc": {"value": 0.9}, "f1": {"value": None}})
