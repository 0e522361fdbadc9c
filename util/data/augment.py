"""Random augmentation of one training volume by torchio. Its parameters are drawn from torch's global generator.

Augmentation acts before normalisation, on values in [0, 1]: gamma needs non-negative values, and the brain's statistics
are then those of the augmented brain. Background stays exactly 0. util/data/device_input.py does the same for batches,
several times faster.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

DIMMEST = 1 / 255  # smallest value of a brain voxel after noise, so that it does not become background


@dataclass(frozen=True)
class Strengths:
    """Ranges of the uniformly drawn parameters; 0 switches a part off. ValueError for values without a meaning."""

    scale: float = 0.1
    """Factor per axis in 1 +- scale."""
    degrees: float = 10.0
    """Angle about each axis in +- degrees."""
    translation: float = 4.0
    """Shift per axis in +- voxels."""
    flip_probability: float = 0.5
    """Probability of exchanging left and right (X)."""
    noise: float = 0.03
    """Largest standard deviation of the noise; one deviation is drawn per volume."""
    log_gamma: float = 0.3
    """Gamma lies in exp(+-log_gamma); one is drawn per contrast."""

    def __post_init__(self) -> None:
        for name in ("scale", "degrees", "translation", "noise", "log_gamma"):
            if getattr(self, name) < 0:
                raise ValueError(f"augmentation {name} is {getattr(self, name)}; give 0 (off) or more")
        if not 0 <= self.flip_probability <= 1 or self.scale >= 1:
            raise ValueError(
                f"augmentation needs flip_probability in [0, 1] and scale < 1: {self.flip_probability}, {self.scale}"
            )


def make_augmentation(**strengths: float) -> Callable[[Tensor], Tensor]:
    """A random function (C, Z, Y, X) in [0, 1] -> the same shape and range. strengths: the fields of `Strengths`.

    DataLoader workers draw different parameters because torch seeds each of them.
    """
    import torchio  # imported here because it takes 115 MiB with SimpleITK, which --augment device does not need

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
    """A class, not a closure, so that it can be pickled for spawned data-loading processes."""

    place: Callable[[Tensor], Tensor]
    shade: Callable[[Tensor], Tensor]

    def __call__(self, volume_CZYX: Tensor) -> Tensor:
        moved_CZYX = self.place(volume_CZYX).clamp(0, 1)
        brain_ZYX = (moved_CZYX >= DIMMEST).any(dim=0)
        shaded_CZYX = self.shade(moved_CZYX).clamp(DIMMEST, 1)
        return torch.where(brain_ZYX, shaded_CZYX, 0.0)
