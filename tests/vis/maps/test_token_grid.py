"""Values of tokens, maps on the token grid and voxels agree about the position of every patch."""

import numpy as np
import pytest
import torch

from vis.maps.token_grid import on_grid, patch_sums, upsample

GRID = (2, 3, 4)  # three different sides, so that swapped axes are found


@pytest.fixture
def small():
    return torch.randn(2, *GRID, generator=torch.Generator().manual_seed(0))


def test_tokens_that_do_not_fill_the_grid_are_refused():
    with pytest.raises(ValueError, match="23 tokens do not fill the grid"):
        on_grid(torch.zeros(1, 23), GRID)


def test_nearest_fills_each_patch(small):
    large = upsample(small, (6, 9, 12))
    np.testing.assert_array_equal(large, small.numpy().repeat(3, 1).repeat(3, 2).repeat(3, 3))


def test_trilinear_meets_the_tokens_at_patch_centres(small):
    large = upsample(small, (6, 9, 12), "trilinear")
    torch.testing.assert_close(large[:, 1::3, 1::3, 1::3], small)
    assert not torch.equal(large, upsample(small, (6, 9, 12), "nearest"))


def test_patch_sums_are_in_raster_order():
    volume = torch.zeros(1, 4, 6, 4)
    volume[0, 2:, 4:, :2] = 1  # patch (1, 2, 0) of grid (2, 3, 2)
    assert patch_sums(volume, 2).tolist() == [[0.0] * 10 + [8.0, 0.0]]
