import pytest
import torch

from models.config import MaskingName
from models.tokens.masking import MASKINGS, count_kept, make_mask

GRIDS = [(2, 3, 4), (5, 5, 5), (7, 4, 9), (1, 1, 12), (1, 6, 5)]


def noise(grid, batch=3, seed=0):
    tokens = grid[0] * grid[1] * grid[2]
    return torch.rand(batch, tokens, generator=torch.Generator().manual_seed(seed))


def removed(masking: MaskingName, grid, ratio=0.75, **options):
    return make_mask(masking, noise(grid, **options), ratio, grid).removed().unflatten(1, grid).bool()


def test_keeps_the_tokens_of_smallest_noise_in_raster_order():
    mask = make_mask("random", torch.tensor([[0.5, 0.1, 0.9, 0.2]]), 0.5, (1, 2, 2))
    assert mask.ids_keep.tolist() == [[1, 3]]
    assert mask.removed().tolist() == [[1, 0, 1, 0]]


def test_the_papers_order_follows_the_noise():
    mask = make_mask("random", torch.tensor([[0.5, 0.2, 0.9, 0.1]]), 0.5, (1, 2, 2), shuffle=True)
    assert mask.ids_keep.tolist() == [[3, 1]]


def test_the_count_is_the_truncated_float_product():
    assert count_kept(1000, 0.9) == 99


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 0.99])
def test_a_ratio_that_leaves_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="mask_ratio"):
        make_mask("random", torch.rand(1, 10), ratio, (1, 2, 5))


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_counts_are_exact_and_every_token_is_kept_or_removed(masking, grid):
    tokens = grid[0] * grid[1] * grid[2]
    for ratio in (0.1, 0.25, 0.5, 0.6, 0.75, 0.9):
        mask = make_mask(masking, noise(grid), ratio, grid)
        assert mask.ids_keep.shape == (3, int(tokens * (1 - ratio)))
        everything = torch.cat([mask.ids_keep, mask.ids_removed], dim=1).sort(dim=1).values
        assert torch.equal(everything, torch.arange(tokens).expand(3, -1))
        assert (mask.ids_keep.diff(dim=1) > 0).all()
        assert (mask.ids_removed.diff(dim=1) > 0).all()


@pytest.mark.parametrize("masking", MASKINGS)
def test_only_noise_decides_and_samples_differ(masking):
    first, again = (removed(masking, (8, 8, 8), batch=4) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(removed(masking, (8, 8, 8), batch=4, seed=1), first)
    assert len({tuple(sample.flatten().tolist()) for sample in first}) == 4
    alone = make_mask(masking, noise((8, 8, 8), batch=4)[2:3], 0.75, (8, 8, 8)).removed()
    assert torch.equal(
        alone.unflatten(1, (8, 8, 8)).bool()[0], first[2]
    )  # independent of the other samples of the batch


@pytest.mark.parametrize(("grid", "sides"), [((12, 12, 12), (3, 3, 3)), ((5, 5, 5), (2, 2, 2)), ((1, 9, 8), (1, 2, 2))])
def test_blocks_are_whole_cubes_but_the_last(grid, sides):
    for sample in removed("block", grid):
        windows = sample
        for axis, side in enumerate(sides):
            windows = windows.unfold(axis, side, 1)
        whole = windows.flatten(3).all(-1)  # corners of cubes that are removed whole
        covered = torch.zeros_like(sample)
        for z, y, x in whole.nonzero().tolist():
            covered[z : z + sides[0], y : y + sides[1], x : x + sides[2]] = True
        left_over = (sample & ~covered).nonzero()
        assert len(left_over) < sides[0] * sides[1] * sides[2]
        if len(left_over):
            extent = left_over.amax(0) - left_over.amin(0)
            assert all(int(length) < side for length, side in zip(extent, sides, strict=True))


def test_blocks_are_more_connected_than_random_tokens():
    def removed_neighbours(masking):  # share of removed neighbours of removed tokens
        gone = removed(masking, (12, 12, 12), batch=8)
        pairs = [(gone.narrow(d, 0, 11), gone.narrow(d, 1, 11)) for d in (1, 2, 3)]
        return sum((a & b).sum() for a, b in pairs) / sum(a.sum() for a, _ in pairs)

    assert removed_neighbours("random") == pytest.approx(0.75, abs=0.02)
    assert removed_neighbours("block") > 0.83
    assert removed_neighbours("grid") < 0.71


@pytest.mark.parametrize(
    ("ratio", "steps"),
    [(1 - 1 / 8, [(0, 0, 2), (0, 2, 0), (2, 0, 0)]), (0.75, [(0, 0, 2), (1, 1, 1)]), (0.5, [(0, 0, 2), (0, 1, 1)]),
     (1 - 1 / 64, [(0, 0, 4), (4, 0, 0)])],
)  # fmt: skip
def test_grid_keeps_a_regular_lattice(ratio, steps):
    """A lattice is invariant under shifts by its own steps, on a grid that its period divides."""
    gone = removed("grid", (8, 8, 8), ratio)
    for step in steps:
        assert torch.equal(gone.roll(step, dims=(1, 2, 3)), gone)
    assert not torch.equal(gone.roll((0, 0, 1), dims=(1, 2, 3)), gone)
