"""Which tokens an autoencoder's encoder sees.

A masking ranks the tokens by noise, and the first K are kept.
Shape suffixes: B batch, L tokens, 3 the axes z, y, x.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Grid, MaskingName
from models.tokens.positions import grid_positions

CUBES_PER_SIDE = 4  # along the shortest side of the grid
MIN_CUBE = 2  # tokens
LATTICE_LEVELS = 2  # halvings of a side: a period of 4 tokens; the coarsest lattice has 1/64 of the tokens
# Corners of a cube in an order of which the first 1, 2, 4 and 8 are spread evenly (the 3D ordered-dither pattern).
CORNERS = ((0, 0, 0), (1, 1, 1), (0, 1, 1), (1, 0, 0), (1, 0, 1), (0, 1, 0), (1, 1, 0), (0, 0, 1))


class Mask(NamedTuple):
    """Raster indices of the kept and of the removed tokens."""

    ids_keep: Tensor
    """(B, K): tokens that the encoder sees, in raster order or shuffled."""
    ids_removed: Tensor
    """(B, L - K), ascending."""

    def removed(self) -> Tensor:
        """(B, L) float, 1 where a token was removed."""
        length = self.ids_keep.shape[1] + self.ids_removed.shape[1]
        removed = torch.zeros(self.ids_keep.shape[0], length, device=self.ids_keep.device)
        return removed.scatter(1, self.ids_removed, 1.0)


def make_mask(masking: MaskingName, noise_BL: Tensor, mask_ratio: float, grid: Grid, *, shuffle: bool = False) -> Mask:
    """Keep K = int(L * (1 - mask_ratio)) tokens of a grid. noise (B, L) in [0, 1) alone decides which.

    shuffle: ids_keep in the order of their noise, as in the paper's code. Raises ValueError unless 0 < mask_ratio < 1
    and at least one token is kept and one removed.
    """
    kept = count_kept(noise_BL.shape[1], mask_ratio)
    ranks_BL = MASKINGS[masking](noise_BL, grid)
    order = ranks_BL.argsort(dim=1, stable=True)
    ids_keep, ids_removed = (part.sort(dim=1).values for part in (order[:, :kept], order[:, kept:]))
    if shuffle:
        ids_keep = ids_keep.gather(1, noise_BL.gather(1, ids_keep).argsort(dim=1, stable=True))
    return Mask(ids_keep, ids_removed)


def count_kept(length: int, mask_ratio: float) -> int:
    """K = int(L * (1 - mask_ratio)). Raises ValueError for a ratio that leaves no token to see or to predict."""
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio={mask_ratio} must lie between 0 and 1")
    kept = int(length * (1 - mask_ratio))
    if not 0 < kept < length:
        raise ValueError(
            f"mask_ratio={mask_ratio} of {length} tokens leaves {kept}; choose another ratio or patch size"
        )
    return kept


def random_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): the noise itself, so the tokens with the smallest noise are kept."""
    return noise_BL


def block_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): ranks that remove whole cubes of tokens, the cubes with the largest noise at their corner first.

    If K ends inside a cube, its first tokens in raster order are kept. The side of a cube is a quarter of the grid's
    shortest side and at least 2 tokens (1 along an axis with a single token).
    """
    cube = max(MIN_CUBE, round(min(grid) / CUBES_PER_SIDE))
    sides = [min(cube, side) for side in grid]
    rank_BL = noise_BL.argsort(dim=1, stable=True).argsort(dim=1)  # ranks, unlike noise, have no ties
    corners_Bzyx = rank_BL.float().unflatten(1, grid)[
        :, : grid[0] - sides[0] + 1, : grid[1] - sides[1] + 1, : grid[2] - sides[2] + 1
    ]
    margins = [side - 1 for axis in (2, 1, 0) for side in (sides[axis],) * 2]
    padded = F.pad(corners_Bzyx, margins, value=-1.0)
    return F.max_pool3d(padded.unsqueeze(1), sides, stride=1).flatten(
        1
    )  # the highest rank of the cubes that cover a token


def lattice_ranks(noise_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L): ranks that keep a regular lattice. Every cube of 4x4x4 tokens has one token of each of 64 levels.

    Levels are kept in an order that spreads the tokens evenly. The token with the smallest noise is the lattice's
    origin. If K ends inside a level, noise decides which of its tokens are kept.
    """
    positions_L3 = grid_positions(grid).to(noise_BL.device)
    origin_B3 = positions_L3[noise_BL.argmin(dim=1)]
    relative_BL3 = (positions_L3 - origin_B3.unsqueeze(1)) % 2**LATTICE_LEVELS
    corner_rank = torch.zeros(2, 2, 2, dtype=torch.long, device=noise_BL.device)
    for index, (z, y, x) in enumerate(CORNERS):
        corner_rank[z, y, x] = index
    level_BL = torch.zeros_like(noise_BL, dtype=torch.long)
    for bit in range(LATTICE_LEVELS):  # the finest bit weighs most, as in an ordered-dither matrix
        z, y, x = (relative_BL3 // 2**bit % 2).unbind(-1)
        level_BL = level_BL * len(CORNERS) + corner_rank[z, y, x]
    return level_BL + noise_BL


MASKINGS: dict[MaskingName, Callable[[Tensor, Grid], Tensor]] = {
    "random": random_ranks,
    "block": block_ranks,
    "grid": lattice_ranks,
}
