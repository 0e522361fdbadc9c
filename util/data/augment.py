"""Random augmentation of a training volume by torchio; every draw comes from torch's global generator.

It acts before z-scoring, on values in [0, 1]: gamma needs non-negative values, and the statistics of the brain are
then those of the augmented brain. Background stays exactly 0, so it is still background afterwards.
util/data/device_input.py does the same to batches, several times faster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DIMMEST = 1 / 255  # a brain voxel that noise would push to 0 or below stays brain


@dataclass(frozen=True)
class Strengths:
    """How much is drawn, uniformly; zero switches a part off. ValueError for what has no meaning."""

    scale: float = 0.1
    """Per axis in 1 +- scale."""
    degrees: float = 10.0
    """About each axis, +- degrees."""
    translation: float = 4.0
    """Voxels per axis, +-."""
    flip_probability: float = 0.5
    """Of exchanging left and right (X)."""
    noise: float = 0.03
    """Largest standard deviation of the noise, one per volume."""
    log_gamma: float = 0.3
    """Exponent in exp(+-log_gamma), one per contrast."""

    def __post_init__(self) -> None:
        for name in ("scale", "degrees", "translation", "noise", "log_gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"augmentation {name} is {getattr(self, name)}; give 0 (off) or more")
        if not 0 <= self.flip_probability <= 1 or self.scale >= 1:
            raise ValueError(
                f"augmentation needs flip_probability in [0, 1] and scale < 1: {self.flip_probability}, {self.scale}"
            )


def make_augmentation(**strengths: float) -> Callable[[Tensor], Tensor]:
    """A function (C, Z, Y, X) in [0, 1] -> the same shape and range, different at each call, as `Strengths` say.

    DataLoader workers differ because torch seeds each of them.
    """
    import torchio  # only here: with SimpleITK it holds 115 MiB, which augmentation on the device does without

    s = Strengths(**strengths)
    # torchio numbers the spatial axes 0, 1, 2 whatever they mean: here Z, Y, X
    place = torchio.Compose(
        [
            torchio.RandomFlip(axes=(2,), flip_probability=s.flip_probability),
            torchio.RandomAffine(scales=s.scale, degrees=s.degrees, translation=s.translation, default_pad_value=0),
        ]
    )
    shade = torchio.Compose(
        [
            torchio.RandomGamma(log_gamma=s.log_gamma),
            torchio.RandomNoise(mean=0, std=(0, s.noise)),
        ]
    )
    return _Augmentation(place, shade)


@dataclass(frozen=True)
class _Augmentation:
    """A class, not a closure, because data-loading processes that are spawned receive it pickled."""

    place: Callable[[Tensor], Tensor]
    shade: Callable[[Tensor], Tensor]

    def __call__(self, volume_CZYX: Tensor) -> Tensor:
        moved_CZYX = self.place(volume_CZYX).clamp(0, 1)
        brain_ZYX = (moved_CZYX >= DIMMEST).any(dim=0)
        shaded_CZYX = self.shade(moved_CZYX).clamp(DIMMEST, 1)
        return torch.where(brain_ZYX, shaded_CZYX, 0.0)
