"""Does a map point at the tumour? Scores against the mask, and readings of a map that can be scored."""

from dataclasses import dataclass

import numpy as np
import torch

from util.inference.study import Study
from vis.maps.registry import method, patch_sums

TUMOUR_SCORES = ("auc", "pointing", "mass", "dice")


@dataclass(frozen=True)
class Reading:
    """Numbers (N,) that should be high in a tumour, one per token or per voxel."""

    values: np.ndarray
    zero: float
    """Where the map says nothing; only what lies above counts as mass."""


@dataclass(frozen=True)
class Places:
    """How many brain and tumour voxels each of N places holds; a place may be a token's patch or a single voxel."""

    brain: np.ndarray
    tumour: np.ndarray

    @property
    def occupied(self) -> np.ndarray:
        """(N,) bool: places that hold brain."""
        return self.brain > 0


def token_places(study: Study, patch_size: int) -> Places:
    """Per token, in raster order. Tumour voxels outside the brain are not counted; without a mask there are none."""
    tumour_ZYX = np.zeros_like(study.brain_ZYX) if study.segmentation_ZYX is None else study.segmentation_ZYX > 0
    return Places(_sums(study.brain_ZYX, patch_size), _sums(tumour_ZYX & study.brain_ZYX, patch_size))


def readings(name: str, values: np.ndarray, occupied: np.ndarray) -> dict[str, Reading]:
    """What of a map (N,) is scored, by row name of the table, fixed before looking at any mask.

    A class-specific map is read twice: as it is (what speaks for the class), and "either way", as the distance from the
    brain's median (what stands out, for or against). A map whose sign is arbitrary is read in the second way only.
    """
    shown = method(name)
    either = Reading(np.abs(values - np.median(values[occupied])), 0.0)
    if shown.class_specific:
        return {name: Reading(values, 0.0), f"{name}, either way": either}
    if shown.scored == "magnitude":
        return {name: either}
    return {name: Reading(values, 0.0 if shown.signed else float(values[occupied].min()))}


def tumour_scores(reading: Reading, places: Places) -> dict[str, float]:
    """auc, pointing, mass and dice of a reading against the mask, over the brain's voxels; ValueError without tumour.

    auc: a random tumour voxel has a higher value than a random other one (equal values count half).
    pointing: share of the voxels of the highest value that lie in the tumour (the pointing game, ties shared).
    mass: share of the map's sum above `zero` that lies in the tumour; compare the tumour's share of the brain.
    dice: the best overlap that any threshold reaches.
    """
    occupied = places.occupied
    levels, level_N = np.unique(reading.values[occupied], return_inverse=True)
    inside = np.bincount(level_N, places.tumour[occupied], len(levels))[::-1]  # from the highest level down
    outside = np.bincount(level_N, (places.brain - places.tumour)[occupied], len(levels))[::-1]
    if not inside.sum() or not outside.sum():
        raise ValueError("scores need brain voxels both inside and outside the tumour")
    above = np.cumsum(inside) - inside
    auc = float((outside * (above + inside / 2)).sum() / (inside.sum() * outside.sum()))
    marked = np.cumsum(inside + outside)
    dice = 2 * np.cumsum(inside) / (marked + inside.sum())
    weight = np.maximum(reading.values[occupied] - reading.zero, 0)
    total = float((weight * places.brain[occupied]).sum())
    return {
        "auc": auc,
        "pointing": float(inside[0] / (inside[0] + outside[0])),
        "mass": float((weight * places.tumour[occupied]).sum()) / total if total else 0.0,
        "dice": float(dice.max()),
    }


def trivial_maps(study: Study, patch_size: int) -> dict[str, np.ndarray]:
    """Maps (L,) without a model: intensity of flair (else of the last contrast), nearness to the brain's centre.

    On the token grid, so that they are compared by what they know and not by their resolution.
    """
    contrast = study.contrasts.index("flair") if "flair" in study.contrasts else len(study.contrasts) - 1
    count = np.maximum(_sums(study.brain_ZYX, patch_size), 1)
    centre = np.argwhere(study.brain_ZYX).mean(axis=0).reshape(3, 1, 1, 1)
    index = np.stack(np.meshgrid(*map(np.arange, study.brain_ZYX.shape), indexing="ij"))
    distance_ZYX = np.sqrt(((index - centre) ** 2).sum(axis=0))
    near_ZYX = (distance_ZYX.max() - distance_ZYX) * study.brain_ZYX
    return {
        study.contrasts[contrast]: _sums(study.grey(study.volume_CZYX)[contrast], patch_size) / count,
        "centre": _sums(near_ZYX, patch_size) / count,
    }


def voxel_flair(study: Study) -> tuple[Reading, Places]:
    """The same intensity voxel by voxel: what a map on tokens would need a finer grid to reach."""
    contrast = study.contrasts.index("flair") if "flair" in study.contrasts else len(study.contrasts) - 1
    brain_ZYX = study.brain_ZYX
    tumour_ZYX = np.zeros_like(brain_ZYX) if study.segmentation_ZYX is None else study.segmentation_ZYX > 0
    values = study.grey(study.volume_CZYX)[contrast][brain_ZYX]
    return Reading(values, 0.0), Places(np.ones(len(values)), tumour_ZYX[brain_ZYX].astype(float))


def _sums(volume_ZYX: np.ndarray, patch_size: int) -> np.ndarray:
    """(L,) float64 sums over patches."""
    return patch_sums(torch.from_numpy(volume_ZYX).unsqueeze(0).double(), patch_size)[0].numpy()
