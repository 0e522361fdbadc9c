"""Augmentation and normalisation of whole batches on the training device.

Data-loading processes only pass on the stored uint8, a quarter of the bytes of float32. The parameters have the
distribution of util/data/augment.py and are drawn from torch's global generator, which is seeded in every epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ops import resample_affine_fn
from util.data.augment import DIMMEST, Strengths, make_augmentation
from util.data.dataset import PreparedVolumes, StoredVolumes
from util.data.normalize import Normalize, normalize_volume

AugmentWhere = Literal["loader", "device"]
Resample = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Drawn:
    """The augmentation parameters of a batch.

    flip (B,) bool; scales, radians and voxels (B, 3) for the axes Z, Y, X; gamma (B, C); noise (B,) standard
    deviations.
    """

    flip: Tensor
    scales: Tensor
    radians: Tensor
    voxels: Tensor
    gamma: Tensor
    noise: Tensor


def draw(strengths: Strengths, batch: int, contrasts: int) -> Drawn:
    """Draw the parameters of `batch` volumes, on the CPU."""

    def uniform(middle: float, half_width: float, count: int) -> Tensor:
        return middle + half_width * (2 * torch.rand(batch, count) - 1)

    return Drawn(
        flip=torch.rand(batch) < strengths.flip_probability,
        scales=uniform(1.0, strengths.scale, 3),
        radians=uniform(0.0, strengths.degrees, 3).deg2rad(),
        voxels=uniform(0.0, strengths.translation, 3),
        gamma=uniform(0.0, strengths.log_gamma, contrasts).exp(),
        noise=strengths.noise * torch.rand(batch),
    )


class DeviceInput:
    """Stored volumes (B, C, Z, Y, X) uint8 -> the model's input, float32, on the device of the batch.

    normalize: as in util/data/normalize.py. strengths: ranges of the augmentation; None for no augmentation.
    """

    def __init__(self, normalize: Normalize, strengths: Strengths | None) -> None:
        self.normalize: Normalize = normalize
        self.strengths = strengths

    @torch.no_grad()
    def __call__(self, stored_BCZYX: Tensor) -> Tensor:
        with torch.autocast(stored_BCZYX.device.type, enabled=False):
            volume_BCZYX = stored_BCZYX.float().div_(255)
            if self.strengths is not None:
                drawn = draw(self.strengths, *stored_BCZYX.shape[:2])
                volume_BCZYX = shade(move(volume_BCZYX, drawn), drawn)
            return normalize_volume(volume_BCZYX, self.normalize)


def move(volume_BCZYX: Tensor, drawn: Drawn, resample: Resample = resample_affine_fn) -> Tensor:
    """Flip, then rotate, translate and scale about the centre, in torchio's order of axes and steps. Outside is 0."""
    if not (drawn.flip.any() or (drawn.scales != 1).any() or drawn.radians.any() or drawn.voxels.any()):
        return volume_BCZYX
    last_3 = torch.tensor(volume_BCZYX.shape[2:], dtype=torch.float64) - 1
    inverse_B33 = _rotation(drawn.radians.double()).transpose(1, 2)
    linear_B33 = inverse_B33 / drawn.scales.double()[:, None, :]
    shift_B3 = last_3 / 2 - (linear_B33 @ (last_3 / 2)) - (inverse_B33 @ drawn.voxels.double()[..., None])[..., 0]
    to_source_B34 = torch.cat([linear_B33, shift_B3[..., None]], dim=2)  # from output voxels to input voxels
    to_source_B34[drawn.flip, 2] *= -1
    to_source_B34[drawn.flip, 2, 3] += last_3[2]
    return resample(volume_BCZYX, to_source_B34)


def shade(volume_BCZYX: Tensor, drawn: Drawn) -> Tensor:
    """Apply gamma and noise to the voxels of the brain, in place: (B, C, Z, Y, X) in [0, 1]."""
    for volume_CZYX, gammas, deviation in zip(volume_BCZYX, drawn.gamma.tolist(), drawn.noise.tolist()):
        volume_CV = volume_CZYX.flatten(1)
        brain_N = (volume_CV.amax(0) >= DIMMEST).nonzero().flatten()
        brain_CN = volume_CV.index_select(1, brain_N).clamp_(
            0, 1
        )  # rounding makes values like -1e-9, which have no power
        for contrast_N, gamma in zip(brain_CN, gammas):
            contrast_N.pow_(gamma)
        if deviation:
            brain_CN += torch.randn_like(brain_CN).mul_(deviation)
        volume_CV.zero_().index_copy_(1, brain_N, brain_CN.clamp_(DIMMEST, 1))
    return volume_BCZYX


def _rotation(radians_B3: Tensor) -> Tensor:
    """Angles (B, 3) about axes 0, 1, 2 -> rotations (B, 3, 3): R_2 R_0 R_1, the order of SimpleITK's Euler angles."""
    rotations = []
    for axis in range(3):
        a, b = [other for other in range(3) if other != axis]
        if axis == 1:
            a, b = b, a
        cos, sin = radians_B3[:, axis].cos(), radians_B3[:, axis].sin()
        matrix = torch.eye(3, dtype=radians_B3.dtype).repeat(len(radians_B3), 1, 1)
        matrix[:, a, a], matrix[:, a, b], matrix[:, b, a], matrix[:, b, b] = cos, -sin, sin, cos
        rotations.append(matrix)
    return rotations[2] @ rotations[0] @ rotations[1]


def training_input(
    volumes: PreparedVolumes, where: AugmentWhere, *, augment: bool
) -> tuple[PreparedVolumes | StoredVolumes, Callable[[Tensor], Tensor]]:
    """The items that a training loader reads, and the function that turns its batches on the device into model input.

    "loader": data-loading processes augment with torchio and normalise, and the function changes nothing. "device":
    data-loading processes only read files. `volumes` itself is not changed, so that it can serve for evaluation.
    """
    if where == "loader":
        transform = make_augmentation() if augment else None
        return volumes.subset(volumes.subjects, transform=transform), _unchanged
    return volumes.stored(), DeviceInput(volumes.normalize, Strengths() if augment else None)


def _unchanged(batch: Tensor) -> Tensor:
    return batch
