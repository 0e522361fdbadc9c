"""Intensity normalisation of a prepared volume."""

from typing import Literal, get_args

import torch
from torch import Tensor

Normalize = Literal["zscore", "zscore-joint", "range"]


def normalize_volume(volume_CZYX: Tensor, how: Normalize) -> Tensor:
    """(C, Z, Y, X) in [0, 1] -> (C, Z, Y, X) float32.

    "zscore": each contrast by its own mean and deviation over the brain (voxels above 0 in any contrast); background
    stays 0. "zscore-joint": one mean and deviation for all contrasts, background included, as the paper's code does;
    a contrast's contrast then depends on the others and on how much air surrounds the head. "range": unchanged.
    """
    volume_CZYX = volume_CZYX.float()
    if how == "range":
        return volume_CZYX
    if how == "zscore-joint":
        return (volume_CZYX - volume_CZYX.mean()) / _deviation(volume_CZYX)
    if how != "zscore":
        raise ValueError(f'normalize is "{how}"; choose one of {", ".join(get_args(Normalize))}')
    brain_ZYX = (volume_CZYX > 0).any(dim=0)
    normalized_CZYX = torch.zeros_like(volume_CZYX)
    if brain_ZYX.any():
        for contrast_ZYX, target_ZYX in zip(volume_CZYX, normalized_CZYX, strict=True):
            values = contrast_ZYX[brain_ZYX]
            target_ZYX[brain_ZYX] = (values - values.mean()) / _deviation(values)
    return normalized_CZYX


def _deviation(values: Tensor) -> Tensor:
    return values.std(correction=0).clamp_min(1e-6)  # a constant contrast becomes 0, not NaN
