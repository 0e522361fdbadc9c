"""Phantom anatomy: the BraTS grid, tissue fractions that add up to 1, a different head for every subject."""

import numpy as np
import pytest

from util.data.phantom.anatomy import brats_grid, random_anatomy

SPACING = 4.0


@pytest.fixture(scope="module")
def anatomy():
    return random_anatomy(np.random.default_rng(0), SPACING)


def test_brats_grid():
    shape, affine = brats_grid(1.0)
    assert shape == (240, 240, 155)
    np.testing.assert_array_equal(affine, [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    assert brats_grid(2.0)[0] == (120, 120, 78)


def test_fractions_add_up_inside_the_brain_only(anatomy):
    total = anatomy.gm + anatomy.wm + anatomy.csf
    np.testing.assert_allclose(total[anatomy.brain], 1, rtol=1e-5)
    assert (total[~anatomy.brain] == 0).all()
    assert (anatomy.t1[~anatomy.brain] == 0).all()


def test_brain_has_a_brains_size_and_lies_inside_the_grid(anatomy):
    litres = anatomy.brain.sum() * SPACING**3 / 1e6
    assert 1.0 < litres < 2.2
    for axis in range(3):
        edges = anatomy.brain.take([0, -1], axis=axis)
        assert edges.sum() < 0.002 * anatomy.brain.sum()
    assert anatomy.gm.sum() > 0.5 * anatomy.wm.sum() > 0.1 * anatomy.brain.sum()


def test_left_and_posterior_grow_along_the_first_two_axes(anatomy):
    x_mm, y_mm, z_mm = (position[anatomy.brain] for position in anatomy.mni_mm)
    index = np.argwhere(anatomy.brain).T
    assert np.corrcoef(index[0], x_mm)[0, 1] < -0.9
    assert np.corrcoef(index[1], y_mm)[0, 1] < -0.9
    assert np.corrcoef(index[2], z_mm)[0, 1] > 0.9


def test_individuals_differ(anatomy):
    other = random_anatomy(np.random.default_rng(1), SPACING)
    overlap = 2 * (anatomy.brain & other.brain).sum() / (anatomy.brain.sum() + other.brain.sum())
    assert 0.8 < overlap < 0.99
