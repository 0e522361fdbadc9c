"""Deletion and insertion: how the class's probability falls when a map's best places are emptied first, and how it
rises when they are shown first (RISE, arXiv 1806.07421)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models import VolumeClassifier
from util.training.eval_mode import evaluating
from vis.maps.explained_class import empty_volume

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)  # of the brain's patches; 0 and 1 are known without a map


def erasure_areas(
    model: VolumeClassifier,
    volume_1CZYX: Tensor,
    values: np.ndarray,
    occupied: np.ndarray,
    target: int,
    *,
    batch: int,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, float]:
    """Areas under the deletion and insertion curve of one volume, 0..1: a true map has a small first, a large second.

    values (L,) rank the patches; occupied (L,) bool: those that hold brain, the only ones emptied or shown. The curves
    are straight lines between `fractions`: of a curve that only falls, or only rises, the area is off by at most half
    the widest gap between them, 0.15.
    """
    places = np.flatnonzero(occupied)
    order = places[np.argsort(-values[places], kind="stable")]
    empty_1CZYX = empty_volume(volume_1CZYX)
    chosen = torch.zeros(len(fractions), len(values), dtype=torch.bool)
    for row, fraction in enumerate(fractions):
        chosen[row, torch.from_numpy(order[: round(fraction * len(order))].copy())] = True
    chosen_F1ZYX = _voxels(chosen, model).to(volume_1CZYX.device)
    volumes = torch.cat(
        [
            volume_1CZYX,
            empty_1CZYX,
            torch.where(chosen_F1ZYX, empty_1CZYX, volume_1CZYX),
            torch.where(chosen_F1ZYX, volume_1CZYX, empty_1CZYX),
        ]
    )
    with evaluating(model):
        probability = torch.cat([model(part).float().softmax(-1)[:, target] for part in volumes.split(batch)])
    whole, empty, *steps = probability.tolist()
    deleted, inserted = steps[: len(fractions)], steps[len(fractions) :]
    shares = (0.0, *fractions, 1.0)
    return {
        "deletion": float(np.trapezoid([whole, *deleted, empty], shares)),
        "insertion": float(np.trapezoid([empty, *inserted, whole], shares)),
    }


def _voxels(chosen_FL: Tensor, model: VolumeClassifier) -> Tensor:
    """(F, L) per patch -> (F, 1, Z, Y, X) per voxel."""
    found = chosen_FL.reshape(len(chosen_FL), 1, *model.grid)
    for axis in (2, 3, 4):
        found = found.repeat_interleave(model.config.patch_size, dim=axis)
    return found
