"""Intensity normalisation of prepared volumes, single or in batches."""

from typing import Literal, get_args

from torch import Tensor

Normalize = Literal["zscore", "zscore-joint", "range"]
SPACE = (-3, -2, -1)


def normalize_volume(volume_CZYX: Tensor, how: Normalize) -> Tensor:
    """(C, Z, Y, X) in [0, 1] -> (C, Z, Y, X) float32. In a batch (B, C, Z, Y, X) each volume is normalised by itself.

    "zscore": each contrast by its own mean and standard deviation over the brain (voxels above 0 in any contrast);
    background stays 0. "zscore-joint": one mean and standard deviation for all contrasts, background included, as in
    the paper's code; the result then depends on the other contrasts and on how much air surrounds the head. "range": no
    change.
    """
    volume_CZYX = volume_CZYX.float()
    if how == "range":
        return volume_CZYX
    if how == "zscore-joint":
        over = (-4, *SPACE)
        mean = volume_CZYX.mean(over, keepdim=True)
        return (volume_CZYX - mean) / _deviation(volume_CZYX.var(over, correction=0, keepdim=True))
    if how != "zscore":
        raise ValueError(f'normalize is "{how}"; choose one of {", ".join(get_args(Normalize))}')
    # Sums over a mask instead of a selection: the selection's size would have to be read back from the device.
    brain_1ZYX = (volume_CZYX.amax(-4, keepdim=True) > 0).float()
    count = brain_1ZYX.sum(SPACE, keepdim=True).clamp_min(1)
    mean = volume_CZYX.sum(SPACE, keepdim=True) / count  # background is 0 and adds nothing
    centred_CZYX = (volume_CZYX - mean).mul_(brain_1ZYX)
    variance = centred_CZYX.square().sum(SPACE, keepdim=True) / count
    return centred_CZYX.div_(_deviation(variance))


def _deviation(variance: Tensor) -> Tensor:
    return variance.sqrt().clamp_min(1e-6)  # a constant contrast becomes 0, not NaN
