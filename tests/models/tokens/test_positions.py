import pytest
import torch

from models.tokens.positions import grid_positions, resample_position_embedding, sincos_position_embedding


def test_raster_order_has_z_slowest():
    assert grid_positions((2, 1, 2)).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize("dim", [24, 26])
def test_every_position_differs_and_each_third_follows_one_axis(dim):
    grid = (3, 4, 5)
    embedding = sincos_position_embedding(grid, dim)
    assert embedding.shape == (1, 60, dim)
    assert len(torch.unique(embedding[0], dim=0)) == 60
    cube = embedding.view(*grid, dim)
    for axis in range(3):
        changes = cube.diff(dim=axis).abs().amax(dim=(0, 1, 2))
        assert changes[8 * axis : 8 * axis + 8].max() > 0.1
        assert changes[[c for c in range(dim) if not 8 * axis <= c < 8 * axis + 8]].max() == 0


def test_resampling_is_exact_for_linear_ramps_on_any_grid():
    source, target = (2, 4, 6), (4, 8, 12)
    ramp = grid_positions(source).float().unsqueeze(0)
    resampled = resample_position_embedding(ramp, source, target).view(*target, 3)
    inner = (grid_positions(target).float().view(*target, 3) + 0.5) / 2 - 0.5  # voxel centres correspond
    torch.testing.assert_close(resampled[1:-1, 1:-1, 1:-1], inner[1:-1, 1:-1, 1:-1])
    torch.testing.assert_close(resample_position_embedding(ramp, source, source), ramp)
