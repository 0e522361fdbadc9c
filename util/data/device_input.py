"""Augmentation and normalisation of whole batches where they are needed, behind the worker boundary.

Data-loading processes hand over the stored uint8, a quarter of the bytes. Parameters have the distribution of
util/data/augment.py and come from torch's global generator, which every epoch seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from util.data.augment import DIMMEST, Strengths, make_augmentation
from util.data.dataset import PreparedVolumes, StoredVolumes
from util.data.normalize import Normalize, normalize_volume

AugmentWhere = Literal["loader", "device"]
Resample = Callable[[Tensor, Tensor], Tensor]


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

    strengths: of the augmentation; None for none. normalize: as in util/data/normalize.py. resample: as
    `ops.resample_affine_fn`.
    """

    def __init__(self, normalize: Normalize, strengths: Strengths | None, resample: Resample) -> None:
        self.normalize: Normalize = normalize
        self.strengths = strengths
        self.resample = resample

    @torch.no_grad()
    def __call__(self, stored_BCZYX: Tensor) -> Tensor:
        with torch.autocast(stored_BCZYX.device.type, enabled=False):
            volume_BCZYX = stored_BCZYX.float().div_(255)
            if self.strengths is not None:
                drawn = draw(self.strengths, *stored_BCZYX.shape[:2])
                volume_BCZYX = shade(move(volume_BCZYX, drawn, self.resample), drawn)
            return normalize_volume(volume_BCZYX, self.normalize)


def move(volume_BCZYX: Tensor, drawn: Drawn, resample: Resample) -> Tensor:
    """Flip, then rotate, translate and scale about the centre, 0 beyond the border; axes and order are torchio's."""
    if not (drawn.flip.any() or (drawn.scales != 1).any() or drawn.radians.any() or drawn.voxels.any()):
        return volume_BCZYX
    last_3 = torch.tensor(volume_BCZYX.shape[2:], dtype=torch.float64) - 1
    inverse_B33 = _rotation(drawn.radians.double()).transpose(1, 2)
    turn_B33 = inverse_B33 / drawn.scales.double()[:, None, :]
    shift_B3 = last_3 / 2 - (turn_B33 @ (last_3 / 2)) - (inverse_B33 @ drawn.voxels.double()[..., None])[..., 0]
    back_B34 = torch.cat([turn_B33, shift_B3[..., None]], dim=2)
    back_B34[drawn.flip, 2] *= -1
    back_B34[drawn.flip, 2, 3] += last_3[2]
    return resample(volume_BCZYX, back_B34)


def shade(volume_BCZYX: Tensor, drawn: Drawn) -> Tensor:
    """Gamma and noise, in the brain's voxels only; the given volume, (B, C, Z, Y, X) in [0, 1], is overwritten."""
    for volume_CZYX, gammas, deviation in zip(volume_BCZYX, drawn.gamma.tolist(), drawn.noise.tolist()):
        volume_CV = volume_CZYX.flatten(1)
        brain_N = (volume_CV.amax(0) >= DIMMEST).nonzero().flatten()
        brain_CN = volume_CV.index_select(1, brain_N).clamp_(0, 1)  # resampling rounds, and -1e-9 has no power
        for contrast_N, gamma in zip(brain_CN, gammas):
            contrast_N.pow_(gamma)
        if deviation:
            brain_CN += torch.randn_like(brain_CN).mul_(deviation)
        volume_CV.zero_().index_copy_(1, brain_N, brain_CN.clamp_(DIMMEST, 1))
    return volume_BCZYX


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
    volumes: PreparedVolumes, where: AugmentWhere, resample: Resample, *, augment: bool
) -> tuple[PreparedVolumes | StoredVolumes, Callable[[Tensor], Tensor]]:
    """What a training loader reads, and what turns its batches, on the device, into the model's input.

    "loader": data-loading processes augment by torchio and normalise, and batches pass unchanged. "device": they only
    read files. The volumes given stay as they are, so evaluation sees nothing of it. resample: as
    `ops.resample_affine_fn`.
    """
    if where == "loader":
        transform = make_augmentation() if augment else None
        return volumes.subset(volumes.subjects, transform=transform), _unchanged
    return volumes.stored(), DeviceInput(volumes.normalize, Strengths() if augment else None, resample)


def _unchanged(batch: Tensor) -> Tensor:
    return batch
