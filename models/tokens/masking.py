"""Which tokens an autoencoder's encoder sees. A way of masking is a rank of tokens by noise; the first K are kept."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Grid, MaskingName
from models.tokens.positions import grid_positions

CUBES_PER_SIDE = 4  # along the shortest side of the grid
MIN_CUBE = 2  # tokens
LATTICE_LEVELS = 2  # halvings of a side: a period of 4 tokens, so that 1/64 of them is the coarsest lattice
# Corners of a cube in an order whose first 1, 2, 4 and 8 are spread evenly (the 3D ordered-dither pattern).
CORNERS = ((0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 1))


class Mask(NamedTuple):
    """ids_keep (B, K): tokens the encoder sees, in raster order, or shuffled where asked; ids_removed (B, L-K),
    ascending."""

    ids_keep: Tensor
    ids_removed: Tensor

    def removed(self) -> Tensor:
        """(B, L) float, 1 where a token was removed."""
        length = self.ids_keep.shape[1] + self.ids_removed.shape[1]
        removed = torch.zeros(self.ids_keep.shape[0], length, device=self.ids_keep.device)
        return removed.scatter(1, self.ids_removed, 1.0)


def make_mask(masking: MaskingName, noise_BL: Tensor, mask_ratio: float, grid: Grid, *, shuffle: bool = False) -> Mask:
    """Keep K = int(L * (1 - mask_ratio)) tokens of a grid, decided by noise (B, L) in [0, 1) alone.

    shuffle: ids_keep in the order of their noise, as in the paper's code. Raises ValueError unless 0 < mask_ratio < 1
    and both parts hold at least one token.
    """
    kept = count_kept(noise_BL.shape[1], mask_ratio)
    ranks_BL = MASKINGS[masking](noise_BL, grid)
    order = ranks_BL.argsort(dim=1, stable=True)
    ids_keep, ids_removed = (part.sort(dim=1).values for part in (order[:, :kept], order[:, kept:]))
    if shuffle:
        ids_keep = ids_keep.gather(1, noise_BL.gather(1, ids_keep).argsort(dim=1, stable=True))
    return Mask(ids_keep, ids_removed)


def count_kept(length: int, mask_ratio: float) -> int:
    """K = int(L * (1 - mask_ratio)); ValueError names a ratio that leaves nothing to see or to predict."""
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio={mask_ratio} must lie between 0 and 1")
    kept = int(length * (1 - mask_ratio))
    if not 0 < kept < length:
        raise ValueError(
            f"mask_ratio={mask_ratio} of {length} tokens leaves {kept}; choose another ratio or patch size"
        )
    return kept


def random_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): the noise itself, so that the tokens of smallest noise are kept."""
    return noise_BL


def block_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): whole cubes of tokens are ranked last, those of largest noise at their corner first; where the count cuts
    a cube, its first tokens in raster order are kept. The side of a cube is a quarter of the grid's shortest side and
    at least 2 tokens (1 along a side of the grid that has no more)."""
    cube = max(MIN_CUBE, round(min(grid) / CUBES_PER_SIDE))
    sides = [min(cube, side) for side in grid]
    rank_BL = noise_BL.argsort(dim=1, stable=True).argsort(dim=1)  # cubes do not tie
    corners_Bzyx = rank_BL.float().unflatten(1, grid)[
        :, : grid[0] - sides[0] + 1, : grid[1] - sides[1] + 1, : grid[2] - sides[2] + 1
    ]
    margins = [side - 1 for axis in (2, 1, 0) for side in (sides[axis],) * 2]
    padded = F.pad(corners_Bzyx, margins, value=-1.0)
    return F.max_pool3d(padded.unsqueeze(1), sides, stride=1).flatten(1)  # the first cube that covers a token


def lattice_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): tokens of a regular lattice first: one place of each cube of 4x4x4 tokens after the other, in an order
    that spreads them evenly. The token of smallest noise is the lattice's origin; where K ends between two places,
    noise decides which tokens of the last one are kept."""
    places_L3 = grid_positions(grid).to(noise_BL.device)
    offset_B3 = places_L3[noise_BL.argmin(dim=1)]
    relative_BL3 = (places_L3 - offset_B3.unsqueeze(1)) % 2**LATTICE_LEVELS
    turn = torch.zeros(2, 2, 2, dtype=torch.long, device=noise_BL.device)
    for index, (z, y, x) in enumerate(CORNERS):
        turn[z, y, x] = index
    level_BL = torch.zeros_like(noise_BL, dtype=torch.long)
    for bit in range(LATTICE_LEVELS):  # the finest place decides most, as in an ordered-dither matrix
        z, y, x = (relative_BL3 // 2**bit % 2).unbind(-1)
        level_BL = level_BL * len(CORNERS) + turn[z, y, x]
    return level_BL + noise_BL


MASKINGS: dict[MaskingName, Callable[[Tensor, Grid], Tensor]] = {
    "random": random_ranks,
    "block": block_ranks,
    "grid": lattice_ranks,
}
