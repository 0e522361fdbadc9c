"""Conversions between values per token (B, L), maps on the token grid (B, z, y, x) and voxels (B, Z, Y, X).

Tokens are in raster order: z changes slowest, x fastest. Each token stands for one patch.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int, int]
Upsampling = Literal["nearest", "trilinear"]


def on_grid(values_BL: Tensor, grid: Grid) -> Tensor:
    """Reshape (B, L) to (B, z, y, x). ValueError if L does not match the grid."""
    z, y, x = grid
    if values_BL.shape[1] != z * y * x:
        raise ValueError(f"{values_BL.shape[1]} tokens do not fill the grid {grid}: give every token, in raster order")
    return values_BL.reshape(-1, z, y, x)


def upsample(map_Bzyx: Tensor, size: Sequence[int], method: Upsampling = "nearest") -> Tensor:
    """(B, z, y, x) on the token grid -> (B, Z, Y, X) voxels of this size.

    "nearest", the paper's choice, fills each patch with its token's value; "trilinear" interpolates between patch
    centres.
    """
    return F.interpolate(map_Bzyx.unsqueeze(1).float(), size=tuple(size), mode=method).squeeze(1)


def patch_sums(volume_BZYX: Tensor, patch_size: int) -> Tensor:
    """(B, Z, Y, X) -> (B, L): the sum over the voxels of each patch."""
    p = patch_size
    z, y, x = (side // p for side in volume_BZYX.shape[1:])
    return volume_BZYX.reshape(-1, z, p, y, p, x, p).sum(dim=(2, 4, 6)).flatten(1)
