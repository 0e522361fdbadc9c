"""Absolute position embeddings on a (z, y, x) grid of tokens.

Shape suffixes: 1 the batch, L tokens, E width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Grid


def grid_positions(grid: Grid) -> Tensor:
    """(L, 3): the (z, y, x) index of every token in raster order."""
    axes = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    return torch.stack(axes, dim=-1).reshape(-1, 3)


def sincos_position_embedding(grid: Grid, dim: int, axes: tuple[int, int, int] = (0, 1, 2)) -> Tensor:
    """(1, L, dim) fixed embedding: a third of the channels for each axis, sines then cosines of geometric frequencies.

    axes: the grid axis of each third; (0, 1, 2) is z, y, x. Channels beyond 6 * (dim // 6) are zero.
    """
    frequencies = dim // 6
    omega = 10000.0 ** (-torch.arange(frequencies, dtype=torch.float64) / frequencies)
    positions, embedding = grid_positions(grid), torch.zeros(math.prod(grid), dim)
    for axis, third in zip(axes, embedding[:, : 6 * frequencies].chunk(3, dim=-1)):
        angles = torch.arange(grid[axis], dtype=torch.float64)[:, None] * omega
        table = torch.cat([angles.sin(), angles.cos()], dim=-1).float()
        third.copy_(table[positions[:, axis]])
    return embedding.unsqueeze(0)


def resample_position_embedding(embedding_1LE: Tensor, source: Grid, target: Grid) -> Tensor:
    """(1, L, E) on grid `source` -> (1, L', E) on grid `target`, trilinear in 3D."""
    volume = embedding_1LE.float().transpose(1, 2).unflatten(2, source)
    resampled = F.interpolate(volume, size=target, mode="trilinear", align_corners=False)
    return resampled.flatten(2).transpose(1, 2).to(embedding_1LE.dtype)
