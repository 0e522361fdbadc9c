"""Trilinear sampling of volumes under an affine map. The specification, in plain PyTorch."""

import torch
import torch.nn.functional as F
from torch import Tensor

SLABS = 8  # pieces of a volume that PyTorch's CPU grid_sample, parallel over the batch only, takes at once


def resample_affine(volume_BCZYX: Tensor, back_B34: Tensor) -> Tensor:
    """`ops.resample_affine_fn` in plain PyTorch."""
    B, C, *size = volume_BCZYX.shape
    half_3 = (torch.tensor(size, dtype=torch.float64) - 1) / 2
    back_B34 = back_B34.double()
    middle_B3 = back_B34[:, :, :3] @ half_3 + back_B34[:, :, 3]
    turn_B33 = back_B34[:, :, :3] * half_3 / half_3[:, None]  # of places from -1 to 1
    shift_B31 = (middle_B3 / half_3 - 1)[..., None]
    theta_B34 = torch.cat([turn_B33.flip(1, 2), shift_B31.flip(1)], dim=2).to(volume_BCZYX)  # z, y, x -> x, y, z
    grid = F.affine_grid(theta_B34, [B, C, *size], align_corners=True)
    if B > 1 or volume_BCZYX.device.type != "cpu" or size[0] % SLABS:
        return F.grid_sample(volume_BCZYX, grid, align_corners=True)
    slabs = F.grid_sample(
        volume_BCZYX.expand(SLABS, -1, -1, -1, -1), grid.view(SLABS, -1, *grid.shape[2:]), align_corners=True
    )
    return slabs.transpose(0, 1).reshape(1, C, *size)
