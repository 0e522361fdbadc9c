"""Random augmentation of a training volume; every draw comes from torch's global generator.

It acts before z-scoring, on values in [0, 1]: gamma needs non-negative values, and the statistics of the brain are
then those of the augmented brain. Background stays exactly 0, so it is still background afterwards.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchio
from torch import Tensor

DIMMEST = 1 / 255  # a brain voxel that noise would push to 0 or below stays brain


def make_augmentation(
    *,
    scale: float = 0.1,
    degrees: float = 10.0,
    translation: float = 4.0,
    flip_probability: float = 0.5,
    noise: float = 0.03,
    log_gamma: float = 0.3,
) -> Callable[[Tensor], Tensor]:
    """A function (C, Z, Y, X) in [0, 1] -> the same shape and range, different at each call.

    scale: per axis in 1 +- scale. degrees: about each axis, +- degrees. translation: voxels, +-. flip_probability: of
    exchanging left and right (X). noise: largest standard deviation. log_gamma: exponent in exp(+-log_gamma), drawn
    per contrast. Zero switches a part off. DataLoader workers differ because torch seeds each of them.
    """
    for name, value in (
        ("scale", scale),
        ("degrees", degrees),
        ("translation", translation),
        ("noise", noise),
        ("log_gamma", log_gamma),
    ):
        if value < 0:
            raise ValueError(f"augmentation {name} is {value}; give 0 (off) or more")
    if not 0 <= flip_probability <= 1 or scale >= 1:
        raise ValueError(f"augmentation needs flip_probability in [0, 1] and scale < 1: {flip_probability}, {scale}")
    # torchio numbers the spatial axes 0, 1, 2 whatever they mean: here Z, Y, X
    place = torchio.Compose(
        [
            torchio.RandomFlip(axes=(2,), flip_probability=flip_probability),
            torchio.RandomAffine(scales=scale, degrees=degrees, translation=translation, default_pad_value=0),
        ]
    )
    shade = torchio.Compose(
        [
            torchio.RandomGamma(log_gamma=log_gamma),
            torchio.RandomNoise(mean=0, std=(0, noise)),
        ]
    )
    return _Augmentation(place, shade)


@dataclass(frozen=True)
class _Augmentation:
    """A class, not a closure, because data-loading processes that are spawned receive it pickled."""

    place: torchio.Transform
    shade: torchio.Transform

    def __call__(self, volume_CZYX: Tensor) -> Tensor:
        moved_CZYX = self.place(volume_CZYX).clamp(0, 1)
        brain_ZYX = (moved_CZYX >= DIMMEST).any(dim=0)
        shaded_CZYX = self.shade(moved_CZYX).clamp(DIMMEST, 1)
        return torch.where(brain_ZYX, shaded_CZYX, 0.0)
