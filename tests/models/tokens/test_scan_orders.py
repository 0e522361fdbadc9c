import math

import pytest
import torch

from models.config import ModelConfig
from models.tokens.positions import grid_positions
from models.tokens.scan_orders import hilbert_path, scan_places

GRIDS = [(1, 1, 1), (1, 1, 6), (2, 3, 4), (5, 5, 5), (8, 8, 8), (3, 11, 6), (1, 7, 9), (10, 10, 10)]
PERMUTATIONS = ("zxy", "yzx", "yxz", "xzy", "xyz")
ORDERS = ("raster", *PERMUTATIONS, "snake", "hilbert")


def jumps(order, grid, apart=1):
    """Distances, in tokens, between tokens whose scan steps differ by `apart`."""
    places = grid_positions(grid)[scan_places(order, grid)].float()
    return (places[apart:] - places[:-apart]).norm(dim=1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_token_is_read_once_and_the_inverse_is_exact(order, grid):
    places = scan_places(order, grid)
    assert places.sort().values.tolist() == list(range(math.prod(grid)))
    assert torch.equal(places[places.argsort()], torch.arange(math.prod(grid)))


def test_axes_are_named_from_slowest_to_fastest():
    assert torch.equal(scan_places("raster", (2, 3, 4)), torch.arange(24))
    for order in PERMUTATIONS:
        positions = grid_positions((2, 3, 4))[scan_places(order, (2, 3, 4))]
        slowest, middle, fastest = ("zyx".index(axis) for axis in order)
        sides = (2, 3, 4)
        assert positions[: sides[fastest], fastest].tolist() == list(range(sides[fastest])), order
        assert (positions[:, slowest].diff() >= 0).all(), order
        assert (positions[: sides[middle] * sides[fastest], slowest] == 0).all(), order


@pytest.mark.parametrize("grid", GRIDS[1:], ids=str)
def test_snake_steps_to_neighbours_only(grid):
    assert (jumps("snake", grid) == 1).all()


@pytest.mark.parametrize("grid", GRIDS[1:], ids=str)
def test_hilbert_steps_to_neighbours_or_diagonally(grid):
    steps = jumps("hilbert", grid)
    assert steps.max() < 1.5  # sqrt(2)
    assert steps.mean() < 1.02
    if all(side % 2 == 0 for side in grid):
        assert (steps == 1).all()


@pytest.mark.parametrize("grid", [(10, 10, 10), (8, 8, 8), (3, 11, 6), (20, 20, 20)], ids=str)
def test_hilbert_is_more_local_than_snake_and_raster(grid):
    means = {order: float(jumps(order, grid, apart=32).mean()) for order in ("hilbert", "snake", "raster")}
    if grid != (8, 8, 8):  # there, 32 steps lead snake to the same column
        assert means["hilbert"] < 0.85 * min(means["snake"], means["raster"])
    assert means["hilbert"] < 4


def test_hilbert_starts_in_a_corner_and_ends_along_the_longest_side():
    for grid in ((4, 6, 10), (10, 4, 4), (4, 8, 4)):
        path = list(hilbert_path(grid))
        longest = grid.index(max(grid))
        assert path[0] == (0, 0, 0)
        assert path[-1] == tuple(side - 1 if axis == longest else 0 for axis, side in enumerate(grid))


def test_shuffle_is_not_an_order_of_a_grid():
    with pytest.raises(ValueError, match="shuffle"):
        scan_places("shuffle", (2, 2, 2))


def test_orders_do_not_follow_the_default_device():
    """A model built on the meta device must not put tensors without values into the cache."""
    with torch.device("meta"):
        places = scan_places("xyz", (3, 4, 5))
        spiral = scan_places("hilbert", (3, 4, 5))
    assert places.device.type == spiral.device.type == "cpu"


def test_an_unknown_order_or_masking_names_the_nearest():
    with pytest.raises(ValueError, match=r"scan_order.*did you mean 'hilbert'"):
        ModelConfig(scan_order="hilbrt")
    with pytest.raises(ValueError, match=r"masking.*did you mean 'block'"):
        ModelConfig(masking="blocks")
    with pytest.raises(ValueError, match=r"directions.*forward"):
        ModelConfig(directions="forwards")
