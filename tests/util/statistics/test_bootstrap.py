"""The vectorised metrics against scikit-learn on every resample, and the coverage of the intervals."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, norm

from tests.helpers.score_cases import binormal, scores
from util.statistics.bootstrap import (
    bootstrap_differences,
    bootstrap_intervals,
    percentile_interval,
    point_metrics,
    resampled_metrics,
    stratified_weights,
)
from util.statistics.delong import delong_interval
from util.statistics.metrics import METRICS, classification_metrics


@pytest.mark.parametrize("ties", [False, True])
def test_weights_give_the_metrics_of_the_resample_written_out(ties):
    labels, one = binormal(1, 12, 20, ties=ties)
    sample = scores(labels, one, threshold=0.4)
    weights = stratified_weights(sample, 25, seed=3)
    found = resampled_metrics(sample, weights)
    for index, row in enumerate(weights.astype(int)):
        written_out = np.repeat(np.arange(len(labels)), row)
        expected = classification_metrics(labels[written_out], one[0, written_out], 0.4)
        for name in METRICS:
            assert found[name][index] == pytest.approx(expected[name], nan_ok=True), name


def test_point_metrics_are_the_mean_over_repeats():
    labels, both = binormal(2, 10, 15, runs=2)
    found = point_metrics(scores(labels, both))
    for name in METRICS:
        assert found[name] == pytest.approx(np.mean([classification_metrics(labels, one)[name] for one in both])), name


def test_resamples_keep_class_counts_and_patients_together():
    labels, one = binormal(0, 8, 12)
    weights = stratified_weights(scores(labels, one), 50, seed=0)
    assert (weights[:, labels == 1].sum(1) == 8).all()
    assert (weights[:, labels == 0].sum(1) == 12).all()
    pairs = [f"p{i // 2}" for i in range(20)]
    weights = stratified_weights(scores(labels, one, patients=pairs), 50, seed=0)
    np.testing.assert_array_equal(weights[:, 0::2], weights[:, 1::2])
    assert weights.std() > 0


def test_intervals_are_seeded_and_ordered():
    sample = scores(*binormal(0, 15, 25))
    first, again, other = (bootstrap_intervals(sample, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    for name, value in point_metrics(sample).items():
        low, high = first[name]
        assert low < high
        if name != "ece":  # noisier bins: a resample's calibration error is larger
            assert low <= value <= high


def test_one_class_has_intervals_for_the_metrics_that_are_defined():
    found = bootstrap_intervals(scores([0, 0, 0, 0], [0.2, 0.4, 0.6, 0.1]))
    assert all(math.isnan(bound) for bound in found["auc"])
    assert found["specificity"][0] < 0.75 <= found["specificity"][1]
    positive = point_metrics(scores([1, 1, 1], [0.9, 0.2, 0.6]))
    for name in ("auc", "average_precision", "specificity", "balanced_accuracy"):
        assert math.isnan(positive[name]), name
    assert positive["sensitivity"] == pytest.approx(2 / 3)


def test_accuracy_of_one_class_agrees_with_the_binomial():
    """The bootstrap of a share is a binomial draw: the interval must be the binomial's quantiles."""
    right = np.arange(50) < 40
    low, high = bootstrap_intervals(scores(np.zeros(50, int), np.where(right, 0.1, 0.9)), resamples=20_000)["accuracy"]
    assert (low, high) == pytest.approx(binom.ppf([0.025, 0.975], 50, 0.8) / 50, abs=0.021)


def test_identical_runs_do_not_differ_and_a_better_one_does():
    labels, both = binormal(0, 30, 40, distance=2.5, runs=2)
    assert bootstrap_differences(scores(labels, both[0]), scores(labels, both[0]))["auc"] == (0, 0)
    worse = scores(labels, np.random.default_rng(0).random(70))
    low, high = bootstrap_differences(scores(labels, both[0]), worse)["auc"]
    assert 0 < low < high


def test_a_sample_without_errors_has_intervals_from_its_size():
    labels = np.repeat([1, 0], [33, 20])
    perfect = scores(labels, labels * 0.8 + 0.1)
    found = bootstrap_intervals(perfect)
    wilson = {n: tuple(binomtest(n, n).proportion_ci(method="wilson")) for n in (20, 33, 53)}
    assert found["accuracy"] == pytest.approx(wilson[53])
    assert found["sensitivity"] == pytest.approx(wilson[33])
    assert found["specificity"] == pytest.approx(wilson[20])
    assert max(wilson[20][0], wilson[33][0]) < found["balanced_accuracy"][0] < 1
    assert found["auc"] == pytest.approx((delong_interval(perfect).low, 1))
    assert wilson[33][0] < found["f1"][0] < 1
    wrong = bootstrap_intervals(scores(labels, 0.9 - labels * 0.8))
    for name in ("accuracy", "balanced_accuracy", "auc", "sensitivity", "specificity"):
        assert wrong[name] == pytest.approx((0, 1 - found[name][0])), name
    together = scores(labels, labels * 0.8 + 0.1, patients=["a"] * 33 + [f"p{i}" for i in range(20)])
    assert bootstrap_intervals(together)["sensitivity"] == pytest.approx(
        tuple(binomtest(1, 1).proportion_ci(method="wilson"))
    )


def test_differences_of_samples_without_errors_are_not_points_either():
    labels = np.repeat([1, 0], [10, 10])
    perfect, other, constant = (scores(labels, p) for p in (labels * 0.8, labels * 0.9, np.full(20, 0.6)))
    low = bootstrap_intervals(perfect)["auc"][0]
    assert bootstrap_differences(perfect, constant)["auc"] == pytest.approx((low - 0.5, 0.5))
    assert bootstrap_differences(perfect, other)["auc"] == pytest.approx((low - 1, 1 - low))
    assert bootstrap_differences(perfect, perfect)["auc"] == (0, 0)


def test_percentile_interval_ignores_nan():
    assert percentile_interval(np.array([np.nan, *np.linspace(0, 1, 41)])) == pytest.approx((0.025, 0.975))


def test_coverage_of_the_auc_interval():
    """300 simulated cohorts of 40 against 60: 95% intervals hold the true AUC in 91% to 98% of them."""
    truth, hits = norm.cdf(1 / math.sqrt(2)), 0
    for seed in range(300):
        low, high = bootstrap_intervals(scores(*binormal(seed, 40, 60)), resamples=400)["auc"]
        hits += low <= truth <= high
    assert 0.91 <= hits / 300 <= 0.98
