import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import roc_auc_score, roc_curve

from tests.helpers.score_cases import binormal, scores
from util.statistics.bootstrap import stratified_weights
from util.statistics.curves import GRID, reliability, roc_band


def test_the_curve_is_the_roc_on_a_grid():
    labels, one = binormal(0, 40, 60, ties=True)  # tied scores: slopes, which a grid can follow
    band = roc_band(scores(labels, one))
    false_rate, true_rate, _ = roc_curve(labels, one[0])
    np.testing.assert_allclose(band.values_G[1:-1], np.interp(GRID, false_rate, true_rate)[1:-1], atol=1e-9)
    assert np.trapezoid(band.values_G, GRID) == pytest.approx(roc_auc_score(labels, one[0]), abs=0.01)


def test_the_grid_is_every_hundredth():
    np.testing.assert_allclose(GRID, np.arange(101) / 100)


def test_a_constant_has_the_diagonal():
    np.testing.assert_allclose(roc_band(scores([1, 1, 0, 0, 0], [0.4] * 5)).values_G, GRID)


def test_the_band_is_the_middle_95_percent_of_the_curves_of_resamples():
    labels, one = binormal(0, 20, 30, ties=True)
    sample = scores(labels, one)
    curves = []
    for weights in stratified_weights(sample, 200, 0):
        false_rate, true_rate, _ = roc_curve(labels, one[0], sample_weight=weights, drop_intermediate=False)
        curves.append(np.interp(GRID, false_rate, true_rate))
    band, inner = roc_band(sample, resamples=200), slice(1, -1)  # at a vertical step either end may be meant
    np.testing.assert_allclose(band.low_G[inner], np.quantile(curves, 0.025, axis=0)[inner], atol=1e-9)
    np.testing.assert_allclose(band.high_G[inner], np.quantile(curves, 0.975, axis=0)[inner], atol=1e-9)


def test_the_band_surrounds_the_curve_and_is_seeded():
    sample = scores(*binormal(0, 40, 60))
    band, again, other = roc_band(sample), roc_band(sample), roc_band(sample, seed=1)
    inner = slice(1, -1)
    assert (band.low_G <= band.values_G)[inner].all()
    assert (band.values_G <= band.high_G + 1e-9)[inner].all()
    assert (band.high_G - band.low_G).max() > 0.1
    np.testing.assert_array_equal(band.low_G, again.low_G)
    assert (band.low_G != other.low_G).any()


def test_a_larger_cohort_has_a_narrower_band():
    small, large = (roc_band(scores(*binormal(0, n, n))) for n in (20, 400))
    assert np.mean(large.high_G - large.low_G) < 0.5 * np.mean(small.high_G - small.low_G)


def test_repeats_are_averaged():
    labels, both = binormal(0, 20, 30, runs=2)
    each = [roc_band(scores(labels, one)).values_G for one in both]
    np.testing.assert_allclose(roc_band(scores(labels, both)).values_G, np.mean(each, axis=0))


def test_reliability_by_hand():
    probabilities = np.linspace(0.05, 0.95, 10)
    labels = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 1])
    found = reliability(scores(labels, probabilities), groups=2)
    assert [(g.count, g.observed) for g in found] == [(5, 0.2), (5, 1.0)]
    assert found[0].predicted == pytest.approx(probabilities[:5].mean())
    assert (found[0].low, found[0].high) == pytest.approx((beta.ppf(0.025, 1, 5), beta.ppf(0.975, 2, 4)))
    assert found[1].high == 1
    assert len(reliability(scores([0, 1], [0.1, 0.9]))) == 2
    assert [group.count for group in reliability(scores(labels, probabilities))] == [2] * 5
