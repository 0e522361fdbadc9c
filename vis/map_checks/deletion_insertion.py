"""Deletion and insertion scores of a map (RISE, arXiv 1806.07421).

Deletion: the probability of the class while the patches with the highest values are replaced by background. Insertion:
the probability while these patches are added to an empty volume.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models import VolumeClassifier
from util.training.eval_mode import evaluating
from vis.maps.explained_class import empty_volume

FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)  # of the patches that hold brain; the ends, 0 and 1, are the same for all maps


def deletion_insertion_areas(
    model: VolumeClassifier,
    volume_1CZYX: Tensor,
    values: np.ndarray,
    has_brain: np.ndarray,
    target: int,
    *,
    batch: int,
    fractions: Sequence[float] = FRACTIONS,
) -> dict[str, float]:
    """Areas under the deletion curve and the insertion curve of one volume, between 0 and 1.

    A map that ranks the patches by their importance has a small deletion area and a large insertion area.

    values: (L,), which rank the patches. has_brain: (L,) bool, the patches that are deleted and inserted. The curves
    are linear between `fractions`. For a monotonic curve the error of the area is at most half the largest gap between
    them: 0.15.
    """
    patches = np.flatnonzero(has_brain)
    order = patches[np.argsort(-values[patches], kind="stable")]
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
    voxels = chosen_FL.reshape(len(chosen_FL), 1, *model.grid)
    for axis in (2, 3, 4):
        voxels = voxels.repeat_interleave(model.config.patch_size, dim=axis)
    return voxels
