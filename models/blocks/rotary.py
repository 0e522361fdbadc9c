"""Rotary embeddings: rotations of channel pairs (2i, 2i+1) by angles that depend on a token's position.

A rotation is a complex tensor (B or 1, L, E/2) of unit numbers. ops.reference.add_norm multiplies channel pairs by it.
This is linear, so rotating hidden and residual separately, as the paper's code does, equals rotating their sum once.
Shape suffixes: B batch, L tokens, 3 the axes z, y, x.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models.config import Grid


def axial_rotation(positions_BL3: Tensor, dim: int) -> Tensor:
    """(B, L, 3) grid positions -> (B, L, dim/2): a third of the pairs rotates with z, a third with y, a third with x.

    Pair i of an axis rotates by position * 10000^(-i / (dim // 6)). Pairs beyond the thirds are not rotated.
    """
    pairs = dim // 6
    frequencies = _frequencies(pairs, positions_BL3.device)
    angles = positions_BL3.float().unsqueeze(-1) * frequencies  # (B, L, 3, pairs)
    return _unit(F.pad(angles.flatten(-2), (0, dim // 2 - 3 * pairs)))


def sequence_rotation(length: int, dim: int, device: torch.device) -> Tensor:
    """(1, length, dim/2), the paper's rotation in pre-training: the first dim/2 channels by index in the sequence."""
    index = torch.arange(length, device=device, dtype=torch.float32)
    angles = index[:, None] * _frequencies(dim // 4, device)
    return _unit(F.pad(angles, (0, dim // 2 - dim // 4))).unsqueeze(0)


def plane_rotation(positions_L3: Tensor, grid: Grid, dim: int) -> Tensor:
    """(1, L, dim/2), the paper's rotation in the classifier: half of the pairs by y, half by x, none by z.

    Positions are scaled to a side of 14.
    """
    frequencies = _frequencies(dim // 4, positions_L3.device)
    y = positions_L3[:, 1, None].float() / grid[1] * 14 * frequencies
    x = positions_L3[:, 2, None].float() / grid[2] * 14 * frequencies
    return _unit(torch.cat([y, x], dim=-1)).unsqueeze(0)


def _frequencies(count: int, device: torch.device) -> Tensor:
    return 10000.0 ** (-torch.arange(count, device=device, dtype=torch.float32) / max(count, 1))


def _unit(angles: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(angles), angles)
