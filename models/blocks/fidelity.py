"""The two fidelities: the parts of `corrected` models and those of the published code (docs/method.md#two-fidelities).

Models use these parts. No other code in the package depends on the name of the fidelity.
Shape suffixes: B batch, L tokens, K kept tokens, D width of the decoder.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from models.blocks.rotary import axial_rotation, plane_rotation, sequence_rotation
from models.config import Fidelity, Grid, ScanOrder
from models.tokens.masking import Mask
from models.tokens.patches import take_tokens
from models.tokens.positions import grid_positions


@dataclass(frozen=True)
class FidelityParts:
    """Where the two fidelities differ."""

    scan_orders: tuple[ScanOrder, ...]
    """The allowed scan orders; the first is the default."""
    position_axes: tuple[int, int, int]
    """The grid axis of each third of the sin-cos embedding."""
    extra_slots: int
    """Decoder slots before the L tokens; they are dropped from the prediction."""
    arrange: Callable[[Tensor, Tensor, Mask], Tensor]
    """(visible (B, K, Ed), mask_token (1, 1, Ed), mask) -> the decoder's input (B, extra_slots + L, Ed)."""
    encoder_rotation: Callable[[Grid, int, Tensor], Tensor]
    """(grid, E, ids_keep (B, K)) -> rotation of the visible tokens."""
    decoder_rotation: Callable[[Grid, int, torch.device], Tensor]
    """(grid, Ed, device) -> rotation of the decoder's slots."""
    full_rotation: Callable[[Grid, int, torch.device], Tensor]
    """(grid, E, device) -> rotation of all L tokens, for the classifier."""


def put_back(visible_BKD: Tensor, mask_token: Tensor, mask: Mask) -> Tensor:
    """Every visible token at its own position, the mask token elsewhere: (B, L, Ed)."""
    batch, kept, dim = visible_BKD.shape
    length = kept + mask.ids_removed.shape[1]
    masked = mask_token.to(visible_BKD.dtype).expand(batch, length, dim)
    return masked.scatter(1, mask.ids_keep.unsqueeze(-1).expand(-1, -1, dim), visible_BKD)


def put_back_shifted(visible_BKD: Tensor, mask_token: Tensor, mask: Mask) -> Tensor:
    """The published layout (B, 1 + L, Ed): slot 0 takes the first visible token as if it were a class token. Visible
    token k+1 then has the position of visible token k."""
    batch, kept, dim = visible_BKD.shape
    order = torch.cat([mask.ids_keep, mask.ids_removed], dim=1)
    fill = mask_token.to(visible_BKD.dtype).expand(batch, order.shape[1] + 1 - kept, dim)
    positions = take_tokens(torch.cat([visible_BKD[:, 1:], fill], dim=1), order.argsort(dim=1))
    return torch.cat([visible_BKD[:, :1], positions], dim=1)


def _axial_all(grid: Grid, dim: int, device: torch.device) -> Tensor:
    return axial_rotation(grid_positions(grid).to(device).unsqueeze(0), dim)


def _axial_kept(grid: Grid, dim: int, ids_keep: Tensor) -> Tensor:
    return axial_rotation(grid_positions(grid).to(ids_keep.device)[ids_keep], dim)


def _length(grid: Grid) -> int:
    return grid[0] * grid[1] * grid[2]


PARTS: dict[Fidelity, FidelityParts] = {
    "corrected": FidelityParts(
        scan_orders=get_args(ScanOrder),
        position_axes=(0, 1, 2),
        extra_slots=0,
        arrange=put_back,
        encoder_rotation=_axial_kept,
        decoder_rotation=_axial_all,
        full_rotation=_axial_all,
    ),
    "paper": FidelityParts(
        scan_orders=("shuffle",),
        position_axes=(1, 0, 2),
        extra_slots=1,
        arrange=put_back_shifted,
        encoder_rotation=lambda grid, dim, ids: sequence_rotation(ids.shape[1], dim, ids.device),
        decoder_rotation=lambda grid, dim, device: sequence_rotation(_length(grid) + 1, dim, device),
        full_rotation=lambda grid, dim, device: plane_rotation(grid_positions(grid).to(device), grid, dim),
    ),
}
