"""Mixup and CutMix of volumes: pairs of a batch are blended, or a box is copied from one to the other."""

import numpy as np
from timm.data.mixup import Mixup
from torch import Tensor


class VolumeMixup(Mixup):
    """timm's Mixup (Zhang et al. 2018) for (B, C, Z, Y, X), whose CutMix (Yun et al. 2019) cuts boxes in three
    dimensions; timm's own would cut columns through the whole of an axis.

    Called with a batch of even size and labels (B,) it returns both mixed, labels as (B, classes). Where mixup_alpha
    and cutmix_alpha are above 0, every batch takes one of the two at random.
    """

    def _mix_batch(self, x: Tensor) -> float:
        volume_BCZYX = x
        share, is_box = self._params_per_batch()
        if not is_box:
            volume_BCZYX.lerp_(volume_BCZYX.flip(0), 1 - share)
            return share
        box = (..., *random_box(volume_BCZYX.shape[-3:], 1 - share))
        volume_BCZYX[box] = volume_BCZYX[box].flip(0)
        return 1 - volume_BCZYX[0, 0][box].numel() / volume_BCZYX[0, 0].numel()


def random_box(shape: tuple[int, ...], share: float) -> tuple[slice, ...]:
    """A box of about `share` of a volume's voxels, in its proportions, centred anywhere and cut off at the border."""
    side = share ** (1 / len(shape))
    lengths = [round(extent * side) for extent in shape]
    starts = [np.random.randint(extent) - length // 2 for extent, length in zip(shape, lengths, strict=True)]  # noqa: NPY002
    return tuple(slice(max(start, 0), max(start + length, 0)) for start, length in zip(starts, lengths, strict=True))
