"""One subject's normalised volume for drawing: brain mask, grey-level window, and the voxel where planes cut."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

LOW, HIGH = 0.5, 99.0  # percentiles of the brain shown as black and white


@dataclass(frozen=True)
class Study:
    """One subject's normalised volume (C, Z, Y, X) with its segmentation, if it has one."""

    subject: str
    contrasts: tuple[str, ...]
    volume_CZYX: np.ndarray
    segmentation_ZYX: np.ndarray | None = None
    oriented: bool = False
    """The manifest records that axes are RAS+, so that figures may letter the sides."""
    phantom: bool = False
    """The volume is simulated, which every figure states."""

    @cached_property
    def brain_ZYX(self) -> np.ndarray:
        """The brain mask, bool (Z, Y, X). Background is one constant per contrast (0, or another value after a joint
        z-score), which is read from a corner of the volume."""
        inside = (self.volume_CZYX != self.volume_CZYX[:, :1, :1, :1]).any(axis=0)
        return inside if inside.any() else np.ones_like(inside)

    @cached_property
    def windows(self) -> np.ndarray:
        """(C, 2) intensities drawn as black and white."""
        values = self.volume_CZYX[:, self.brain_ZYX]
        return np.percentile(values, [LOW, HIGH], axis=1).T

    @cached_property
    def focus(self) -> tuple[int, int, int]:
        """(z, y, x), the voxel where planes cut: the tumour voxel nearest the tumour's centre, else the middle of the
        brain."""
        tumour = None if self.segmentation_ZYX is None else np.argwhere(self.segmentation_ZYX > 0)
        if tumour is not None and len(tumour):
            nearest = ((tumour - tumour.mean(axis=0)) ** 2).sum(axis=1).argmin()
            z, y, x = tumour[nearest]
        else:
            places = np.argwhere(self.brain_ZYX)
            z, y, x = (places.min(axis=0) + places.max(axis=0)) // 2
        return int(z), int(y), int(x)

    def grey(self, volume_CZYX: np.ndarray) -> np.ndarray:
        """Intensities (C, Z, Y, X) of this subject -> grey levels in [0, 1] by the input's window.

        Background is set to 0: in a z-scored volume it would have the grey of the brain's mean.
        """
        low, high = (self.windows[:, end].reshape(-1, 1, 1, 1) for end in (0, 1))
        grey = ((volume_CZYX - low) / np.maximum(high - low, 1e-6)).clip(0, 1)
        return np.where(self.brain_ZYX, grey, 0.0)
