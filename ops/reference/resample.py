"""The specification of trilinear resampling by an affine map, in plain PyTorch.

Shape suffixes: B batch, C contrasts, Z Y X voxels; 3, 4 and 1 are sizes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SLABS = 8  # a single volume is cut into so many: PyTorch's grid_sample runs in parallel over the batch only


def resample_affine(volume_BCZYX: Tensor, back_B34: Tensor) -> Tensor:
    """`ops.resample_affine_fn` in plain PyTorch."""
    B, C, *size = volume_BCZYX.shape
    if not B:
        return volume_BCZYX.clone()
    if 1 in size:  # affine_grid knows no position along an axis of one voxel: beyond the volume there are zeros
        z, y, x = size
        padded = F.pad(volume_BCZYX, [0, int(x == 1), 0, int(y == 1), 0, int(z == 1)])
        return resample_affine(padded, back_B34)[..., :z, :y, :x].contiguous()
    half_3 = (torch.tensor(size, dtype=torch.float64) - 1) / 2
    back_B34 = back_B34.double()
    centre_B3 = back_B34[:, :, :3] @ half_3 + back_B34[:, :, 3]
    # affine_grid takes coordinates from -1 to 1 in the order x, y, z
    linear_B33 = back_B34[:, :, :3] * half_3 / half_3[:, None]
    shift_B31 = (centre_B3 / half_3 - 1)[..., None]
    theta_B34 = torch.cat([linear_B33.flip(1, 2), shift_B31.flip(1)], dim=2).to(volume_BCZYX)
    grid = F.affine_grid(theta_B34, [B, C, *size], align_corners=True)
    if B > 1 or volume_BCZYX.device.type != "cpu" or size[0] % SLABS:
        return F.grid_sample(volume_BCZYX, grid, align_corners=True)
    slabs = F.grid_sample(
        volume_BCZYX.expand(SLABS, -1, -1, -1, -1), grid.view(SLABS, -1, *grid.shape[2:]), align_corners=True
    )
    return slabs.transpose(0, 1).reshape(1, C, *size)
