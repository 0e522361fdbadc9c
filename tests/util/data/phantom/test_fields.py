"""Smooth fields: their length scale, their statistics, their dependence on the generator."""

import numpy as np

from util.data.phantom.fields import smooth_field


def neighbour_correlation(field: np.ndarray, distance: int) -> float:
    return float(np.corrcoef(field[:-distance].ravel(), field[distance:].ravel())[0, 1])


def test_statistics_and_smoothness():
    field = smooth_field(np.random.default_rng(0), (60, 50, 40), 8)
    assert field.shape == (60, 50, 40)
    assert field.dtype == np.float32
    assert 0.6 < field.std() < 1.2
    assert abs(field.mean()) < 0.2
    assert neighbour_correlation(field, 1) > 0.9
    assert abs(neighbour_correlation(field, 24)) < 0.3


def test_longer_means_smoother():
    short, long = (smooth_field(np.random.default_rng(1), (60, 40, 40), length) for length in (6, 20))
    assert neighbour_correlation(long, 6) > neighbour_correlation(short, 6) + 0.2


def test_generator_decides():
    first, again, other = (smooth_field(np.random.default_rng(seed), (10, 10, 10), 4) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
