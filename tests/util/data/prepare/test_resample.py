"""Crop, grid and window: an invertible geometry, values of the brain only, background 0."""

import numpy as np
import pytest

from util.data.prepare.resample import (
    brain_box,
    crop_affine,
    fit_grid,
    resample_brain,
    resample_image,
    resample_labels,
    window_to_uint8,
)


def test_box_is_tight_with_margin_and_clipped():
    brain = np.zeros((10, 12, 14), bool)
    brain[0:4, 5:7, 13] = True
    assert brain_box(brain, 0) == [(0, 4), (5, 7), (13, 14)]
    assert brain_box(brain, 2) == [(0, 6), (3, 9), (11, 14)]


def test_same_size_and_spacing_is_the_identity():
    image = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32) + 1
    brain = np.ones_like(image, bool)
    grid = fit_grid(image.shape, np.ones(3), (6, 7, 8))
    share, mask = resample_brain(brain, grid)
    np.testing.assert_allclose(resample_image(image, brain, share, grid), image, rtol=1e-5)
    assert mask.all()


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0), (0.5, 1.0, 2.0)])
@pytest.mark.parametrize("shape", [(16, 16, 16), (24, 16, 20)])
def test_grid_is_isotropic_centred_and_holds_the_crop(voxel_mm, shape):
    crop = (20, 30, 12)
    grid = fit_grid(crop, np.array(voxel_mm), shape)
    affine = grid.affine(np.diag([*voxel_mm, 1.0]))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, spacing[0])
    extent_mm = np.array(crop) * voxel_mm
    assert (extent_mm <= spacing * shape + 1e-9).all()
    assert np.isclose(extent_mm, spacing * shape).any()  # no finer grid would hold it
    middle = affine @ [*((np.array(shape) - 1) / 2), 1]
    np.testing.assert_allclose(middle[:3], (np.array(crop) - 1) / 2 * voxel_mm)


def test_crop_affine_moves_the_origin():
    affine = np.array([[0, -2.0, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]])
    moved = crop_affine(affine, [(4, 9), (5, 9), (6, 9)])
    np.testing.assert_allclose(moved @ [1, 2, 3, 1], affine @ [5, 7, 9, 1])


def test_flat_brain_stays_flat_up_to_its_edge():
    brain = np.zeros((20, 20, 20), bool)
    brain[3:17, 4:16, 5:15] = True
    grid = fit_grid(brain.shape, np.ones(3), (13, 13, 13))
    share, mask = resample_brain(brain, grid)
    image = resample_image(np.where(brain, 500.0, -40.0), brain, share, grid)
    np.testing.assert_allclose(image[mask], 500, rtol=1e-4)


def test_coarser_grids_average():
    checkers = np.indices((40, 40, 40)).sum(0) % 2 * 100.0
    brain = np.ones_like(checkers, bool)
    grid = fit_grid(checkers.shape, np.ones(3), (13, 13, 13))
    share, _ = resample_brain(brain, grid)
    image = resample_image(checkers, brain, share, grid)
    np.testing.assert_allclose(image[2:-2, 2:-2, 2:-2], 50, atol=5)


def test_labels_are_never_mixed():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[5:12] = 4
    labels[12:15] = 1
    assert set(np.unique(resample_labels(labels, fit_grid(labels.shape, np.ones(3), (13, 13, 13))))) == {0, 1, 4}


@pytest.mark.parametrize("voxel_mm", [(1.0, 1.0, 1.0), (1.0, 0.8, 3.0)])
@pytest.mark.parametrize("shape", [(20, 24, 28), (18, 16, 22), (8, 10, 12)])
def test_a_prepared_label_is_that_of_the_voxel_its_centre_lies_in(voxel_mm, shape):
    """Out to the outer faces of the crop, half a voxel beyond the centres of its last voxels; 0 beyond them."""
    labels = np.random.default_rng(0).integers(1, 5, (10, 12, 14), dtype=np.uint8)
    grid = fit_grid(labels.shape, np.array(voxel_mm), shape)
    places = np.moveaxis(np.indices(shape), 0, -1) * grid.step + grid.offset
    voxels = np.floor(places + 0.5).astype(int)
    inside = ((voxels >= 0) & (voxels < labels.shape)).all(-1)
    expected = np.where(inside, labels[tuple(np.moveaxis(voxels % labels.shape, -1, 0))], 0)
    np.testing.assert_array_equal(resample_labels(labels, grid), expected)


def test_window_uses_percentiles_of_the_brain_only():
    brain = np.zeros((10, 10, 10), bool)
    brain[2:8, 2:8, 2:8] = True
    image = np.where(brain, np.random.default_rng(0).normal(500, 50, brain.shape), -1e6)
    prepared, (low, high) = window_to_uint8(image, brain, (1, 99))
    assert prepared.dtype == np.uint8
    assert (prepared[~brain] == 0).all()
    assert prepared[brain].min() == 1
    assert prepared[brain].max() == 255
    np.testing.assert_allclose([low, high], np.percentile(image[brain], (1, 99)))
    middle = brain & (image > low) & (image < high)
    restored = (prepared[middle] - 1.0) / 254 * (high - low) + low
    np.testing.assert_allclose(restored, image[middle], atol=(high - low) / 254)


def test_window_of_a_constant_brain_is_refused():
    with pytest.raises(ValueError, match="is constant inside the brain"):
        window_to_uint8(np.full((4, 4, 4), 3.0), np.ones((4, 4, 4), bool), (0.5, 99.5))
