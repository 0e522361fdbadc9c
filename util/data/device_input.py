"""Augmentation and normalisation of whole batches where they are needed, behind the worker boundary.

Data-loading processes hand over the stored uint8, a quarter of the bytes; one grid moves all contrasts of a volume.
Parameters have the distribution of util/data/augment.py and come from torch's global generator, which every epoch
seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from util.data.augment import DIMMEST, Strengths, make_augmentation
from util.data.dataset import PreparedVolumes, StoredVolumes
from util.data.normalize import Normalize, normalize_volume

AugmentWhere = Literal["loader", "device"]
SLABS = 8  # pieces of a volume that PyTorch's CPU grid_sample, parallel over the batch only, takes at once


@dataclass(frozen=True)
class Drawn:
    """Parameters of a batch. flip (B,) bool; scales, radians and voxels (B, 3) about and along Z, Y, X;
    gamma (B, C); noise (B,) standard deviations."""

    flip: Tensor
    scales: Tensor
    radians: Tensor
    voxels: Tensor
    gamma: Tensor
    noise: Tensor


def draw(strengths: Strengths, batch: int, contrasts: int) -> Drawn:
    """Parameters for `batch` volumes, on the CPU."""

    def around(middle: float, reach: float, count: int) -> Tensor:
        return middle + reach * (2 * torch.rand(batch, count) - 1)

    return Drawn(
        flip=torch.rand(batch) < strengths.flip_probability,
        scales=around(1.0, strengths.scale, 3),
        radians=around(0.0, strengths.degrees, 3).deg2rad(),
        voxels=around(0.0, strengths.translation, 3),
        gamma=around(0.0, strengths.log_gamma, contrasts).exp(),
        noise=strengths.noise * torch.rand(batch),
    )


class DeviceInput:
    """Stored volumes (B, C, Z, Y, X) uint8 -> the model's input, float32, on the device of the batch.

    strengths: of the augmentation; None for none. normalize: as in util/data/normalize.py.
    """

    def __init__(self, normalize: Normalize, strengths: Strengths | None) -> None:
        self.normalize: Normalize = normalize
        self.strengths = strengths

    @torch.no_grad()
    def __call__(self, stored_BCZYX: Tensor) -> Tensor:
        with torch.autocast(stored_BCZYX.device.type, enabled=False):
            volume_BCZYX = stored_BCZYX.float().div_(255)
            if self.strengths is not None:
                volume_BCZYX = augment(volume_BCZYX, draw(self.strengths, *stored_BCZYX.shape[:2]))
            return normalize_volume(volume_BCZYX, self.normalize)


def augment(volume_BCZYX: Tensor, drawn: Drawn) -> Tensor:
    """(B, C, Z, Y, X) in [0, 1] -> the same shape and range: flip, affine, then gamma and noise inside the brain.

    The given volume is overwritten: on a CPU fresh memory costs more than the arithmetic.
    """
    for index in drawn.flip.nonzero().flatten().tolist():
        volume_BCZYX[index] = volume_BCZYX[index].flip(-1)
    if (drawn.scales != 1).any() or drawn.radians.any() or drawn.voxels.any():
        volume_BCZYX = move(volume_BCZYX, drawn).clamp_(0, 1)
    brain_B1ZYX = volume_BCZYX.amax(1, keepdim=True) >= DIMMEST
    if (drawn.gamma != 1).any():
        for volume, gammas in zip(volume_BCZYX, drawn.gamma.tolist()):
            for contrast, gamma in zip(volume, gammas):
                contrast.pow_(gamma)
    if drawn.noise.any():
        deviation = drawn.noise.to(volume_BCZYX.device).view(-1, 1, 1, 1, 1)
        volume_BCZYX += torch.randn_like(volume_BCZYX).mul_(deviation)
    return volume_BCZYX.clamp_(DIMMEST, 1).mul_(brain_B1ZYX)


def move(volume_BCZYX: Tensor, drawn: Drawn) -> Tensor:
    """Rotate, translate, then scale about the centre, trilinear, 0 beyond the border; axes and order are torchio's."""
    B, C, *size = volume_BCZYX.shape
    half_ZYX = (torch.tensor(size, dtype=torch.float64) - 1) / 2
    inverse_B33 = _rotation(drawn.radians.double()).transpose(1, 2)
    back_B33 = inverse_B33 / drawn.scales.double()[:, None, :]
    shift_B3 = -(inverse_B33 @ drawn.voxels.double()[..., None])[..., 0]
    theta_B34 = torch.cat([back_B33 * half_ZYX / half_ZYX[:, None], (shift_B3 / half_ZYX)[..., None]], dim=2)
    theta_B34 = torch.cat([theta_B34[:, :, :3].flip(1, 2), theta_B34[:, :, 3:].flip(1)], dim=2)  # z, y, x -> x, y, z
    grid = F.affine_grid(theta_B34.float().to(volume_BCZYX.device), [B, C, *size], align_corners=True)
    if B > 1 or volume_BCZYX.device.type != "cpu" or size[0] % SLABS:
        return F.grid_sample(volume_BCZYX, grid, align_corners=True)
    slabs = F.grid_sample(
        volume_BCZYX.expand(SLABS, -1, -1, -1, -1), grid.view(SLABS, -1, *grid.shape[2:]), align_corners=True
    )
    return slabs.transpose(0, 1).reshape(1, C, *size)


def _rotation(radians_B3: Tensor) -> Tensor:
    """(B, 3) angles about axes 0, 1, 2 -> (B, 3, 3): R_2 R_0 R_1, the order of SimpleITK's Euler angles."""
    around = []
    for axis in range(3):
        a, b = [other for other in range(3) if other != axis]
        if axis == 1:
            a, b = b, a
        cos, sin = radians_B3[:, axis].cos(), radians_B3[:, axis].sin()
        matrix = torch.eye(3, dtype=radians_B3.dtype).repeat(len(radians_B3), 1, 1)
        matrix[:, a, a], matrix[:, a, b], matrix[:, b, a], matrix[:, b, b] = cos, -sin, sin, cos
        around.append(matrix)
    return around[2] @ around[0] @ around[1]


def training_input(
    volumes: PreparedVolumes, where: AugmentWhere, *, augment: bool
) -> tuple[PreparedVolumes | StoredVolumes, Callable[[Tensor], Tensor]]:
    """What a training loader reads, and what turns its batches, on the device, into the model's input.

    "loader": data-loading processes augment by torchio and normalise, and batches pass unchanged. "device": they only
    read files. The volumes given stay as they are, so evaluation sees nothing of it.
    """
    if where == "loader":
        transform = make_augmentation() if augment else None
        return volumes.subset(volumes.subjects, transform=transform), _unchanged
    return volumes.stored(), DeviceInput(volumes.normalize, Strengths() if augment else None)


def _unchanged(batch: Tensor) -> Tensor:
    return batch
