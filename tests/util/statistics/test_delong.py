"""DeLong's variance against its definition by brute force, and its coverage by simulation."""

import math
from dataclasses import astuple

import numpy as np
import pytest
from scipy.stats import mannwhitneyu, norm

from tests.helpers.score_cases import binormal, scores
from util.statistics.delong import delong_difference, delong_interval, ordered_pairs
from util.statistics.metrics import classification_metrics


def brute_force(labels, *runs):
    """(AUCs, covariance) written out pair by pair after DeLong 1988, equations 4 to 7; no arrays."""
    positives, negatives = ([i for i, label in enumerate(labels) if label == c] for c in (1, 0))
    m, n = len(positives), len(negatives)

    def psi(run, i, j):
        return 1.0 if run[i] > run[j] else 0.5 if run[i] == run[j] else 0.0

    areas = [sum(psi(run, i, j) for i in positives for j in negatives) / (m * n) for run in runs]
    v10 = [[sum(psi(run, i, j) for j in negatives) / n for i in positives] for run in runs]
    v01 = [[sum(psi(run, i, j) for i in positives) / m for j in negatives] for run in runs]
    covariance = [
        [
            sum((v10[r][i] - areas[r]) * (v10[s][i] - areas[s]) for i in range(m)) / (m - 1) / m
            + sum((v01[r][j] - areas[r]) * (v01[s][j] - areas[s]) for j in range(n)) / (n - 1) / n
            for s in range(len(runs))
        ]
        for r in range(len(runs))
    ]
    return areas, covariance


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_variance_and_difference_agree_with_brute_force(seed, ties):
    labels, (a, b) = binormal(seed, 4 + seed, 9, runs=2, ties=ties)
    (area_a, area_b), cov = brute_force(labels, a, b)
    one = delong_interval(scores(labels, a))
    assert (one.auc, one.error) == pytest.approx((area_a, math.sqrt(cov[0][0])))
    pair = delong_difference(scores(labels, a), scores(labels, b))
    error = math.sqrt(cov[0][0] + cov[1][1] - 2 * cov[0][1])
    assert (pair.difference, pair.error) == pytest.approx((area_a - area_b, error))
    assert pair.p == pytest.approx(2 * (1 - norm.cdf(abs(area_a - area_b) / error)))
    reach = 1.959964 * error
    assert (pair.low, pair.high) == pytest.approx((area_a - area_b - reach, area_a - area_b + reach))


def test_auc_agrees_with_mann_whitney_and_sklearn():
    labels, one = binormal(0, 20, 30, ties=True)
    area = delong_interval(scores(labels, one)).auc
    assert area == pytest.approx(mannwhitneyu(one[0, :20], one[0, 20:]).statistic / 600)
    assert area == pytest.approx(classification_metrics(labels, one[0])["auc"])


def test_ordered_pairs_counts_ties_as_half():
    np.testing.assert_array_equal(ordered_pairs(np.array([1, 0, 0, 0]), np.array([0.5, 0.4, 0.5, 0.6])), [[1, 0.5, 0]])


def test_repeats_that_agree_change_nothing():
    labels, one = binormal(0, 12, 18)
    repeated, once = (astuple(delong_interval(scores(labels, runs))) for runs in (one.repeat(3, axis=0), one))
    assert repeated == pytest.approx(once, rel=1e-12)


def test_undefined_values_are_nan():
    assert math.isnan(delong_interval(scores([0, 0, 0], [0.1, 0.2, 0.3])).auc)
    few = delong_interval(scores([1, 0, 0], [0.9, 0.2, 0.3]))
    assert few.auc == 1
    assert math.isnan(few.error)
    together = scores([1, 1, 0, 0], [0.9, 0.8, 0.2, 0.3], patients=["a", "a", "b", "c"])
    assert math.isnan(delong_interval(together).low)
    assert math.isnan(delong_difference(together, together).p)
    one_class = scores([0, 0, 0], [0.1, 0.2, 0.3])
    assert math.isnan(delong_difference(one_class, one_class).difference)


def test_p_is_one_for_equal_runs_and_nan_for_a_perfect_against_a_constant_one():
    labels, one = binormal(0, 10, 10)
    assert delong_difference(scores(labels, one), scores(labels, one)).p == 1
    perfect, constant = scores(labels, labels * 0.8), scores(labels, np.full(20, 0.5))
    found = delong_difference(perfect, constant)
    assert math.isnan(found.p)
    area = delong_interval(perfect)
    assert (found.difference, found.error, found.high) == (0.5, 0, 0.5)
    assert found.low == pytest.approx(area.low - 0.5)  # the constant's area is known


@pytest.mark.parametrize("repeats", [(1, 1), (3, 7)])
@pytest.mark.parametrize(("positives", "negatives"), [(3, 7), (10, 10), (31, 13)])
def test_rounding_is_no_error(positives, negatives, repeats):
    """The kernels of two runs that order every pair alike, or differ by the same everywhere, have no variance."""
    labels, one = binormal(2, positives, negatives, distance=1.5)
    runs = [scores(labels, np.repeat(p, r, axis=0)) for p, r in zip((one, one**3), repeats)]
    same = delong_difference(*runs)
    assert (same.difference, same.error, same.low, same.high, same.p) == (0, 0, 0, 0, 1)
    perfect = [
        scores(labels, np.repeat(p, r, axis=0)) for p, r in zip((labels[None] * 0.8, labels[None] * 0.3), repeats)
    ]
    mostly = scores(labels, np.stack([labels * 0.8, labels * 0.7, 0.5 - labels * 0.2]))  # two of three are perfect
    apart = delong_difference(mostly, scores(labels, np.full((repeats[1], len(labels)), 0.3)))
    assert apart.difference == pytest.approx(1 / 6)
    assert apart.error == 0
    assert math.isnan(apart.p)
    both = delong_difference(*perfect)
    assert (both.difference, both.p) == (0, 1)
    assert both.high == pytest.approx(1 - delong_interval(perfect[0]).low) == -both.low  # not known to be equal


def test_the_interval_stays_within_zero_and_one_and_is_normal_on_the_log_odds():
    labels, one = binormal(0, 6, 6, distance=1.5)
    found = delong_interval(scores(labels, one))
    assert 0 < found.low < found.auc < found.high < 1
    low, middle, high = (math.log(p / (1 - p)) for p in (found.low, found.auc, found.high))
    assert middle - low == pytest.approx(high - middle)
    assert high - middle == pytest.approx(1.959964 * found.error / (found.auc * (1 - found.auc)))


@pytest.mark.parametrize(("positives", "negatives", "low"), [(2, 2, 0.386), (33, 33, 0.939)])
def test_perfect_separation_has_the_interval_of_its_class_sizes(positives, negatives, low):
    labels = np.repeat([1, 0], [positives, negatives])
    found = delong_interval(scores(labels, np.linspace(0.9, 0.1, len(labels))))
    assert (found.auc, found.error, found.high) == (1, 0, 1)
    assert found.low == pytest.approx(low, abs=5e-4)
    inverted = delong_interval(scores(labels, np.linspace(0.1, 0.9, len(labels))))
    assert (inverted.auc, inverted.low, inverted.high) == (0, 0, pytest.approx(1 - found.low))


def test_a_constant_has_a_point():
    found = delong_interval(scores([1, 1, 0, 0], [0.4] * 4))
    assert (found.auc, found.error, found.low, found.high) == (0.5, 0, 0.5, 0.5)


def test_small_samples_that_are_often_separated_are_covered():
    truth, hits, separated = norm.cdf(3 / math.sqrt(2)), 0, 0
    for seed in range(300):
        found = delong_interval(scores(*binormal(seed, 8, 8, distance=3)))
        hits += found.low <= truth <= found.high
        separated += found.auc == 1
    assert separated > 100  # a third of them missed the truth with a point as interval
    assert hits / 300 >= 0.95


def test_near_one_it_has_the_coverage_that_the_plain_interval_lacks():
    truth, hits, plain = norm.cdf(2.5 / math.sqrt(2)), 0, 0
    for seed in range(300):
        found = delong_interval(scores(*binormal(seed, 20, 30, distance=2.5)))
        hits += found.low <= truth <= found.high
        plain += abs(truth - found.auc) <= 1.96 * found.error
    assert hits / 300 >= 0.9 > plain / 300


def test_coverage_and_false_positive_rate():
    """400 simulated cohorts of 40 against 60: the interval holds the truth in 92% to 98%, and two runs that are equally
    good are told apart in 2% to 8% of them at the 5% level."""
    truth, hits, alarms = norm.cdf(1 / math.sqrt(2)), 0, 0
    for seed in range(400):
        labels, (a, b) = binormal(seed, 40, 60, runs=2)
        found = delong_interval(scores(labels, a))
        hits += found.low <= truth <= found.high
        alarms += delong_difference(scores(labels, a), scores(labels, b)).p < 0.05
    assert 0.92 <= hits / 400 <= 0.98
    assert 0.02 <= alarms / 400 <= 0.08
