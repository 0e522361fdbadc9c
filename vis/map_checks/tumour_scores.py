"""Scores of how well a map localises the tumour, against the segmentation mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from util.inference.study import Study
from vis.maps.registry import map_kind
from vis.maps.token_grid import patch_sums


@dataclass(frozen=True)
class Variant:
    """One way to read a map: values (N,) that are expected to be high in a tumour, one per patch or per voxel."""

    values: np.ndarray
    zero: float
    """The value that stands for no evidence. Only the part of a value above it counts as mass."""


@dataclass(frozen=True)
class VoxelCounts:
    """Numbers (N,) of brain voxels and of tumour voxels, per patch or per voxel."""

    brain: np.ndarray
    tumour: np.ndarray

    @property
    def has_brain(self) -> np.ndarray:
        """(N,) bool: the patch holds at least one brain voxel."""
        return self.brain > 0


def patch_counts(study: Study, patch_size: int) -> VoxelCounts:
    """Counts per patch, in raster order. Tumour voxels outside the brain are not counted. No mask means no tumour."""
    tumour_ZYX = _tumour(study) & study.brain_ZYX
    return VoxelCounts(_sums(study.brain_ZYX, patch_size), _sums(tumour_ZYX, patch_size))


def map_variants(name: str, values: np.ndarray, has_brain: np.ndarray) -> dict[str, Variant]:
    """The variants of a map (N,) that are scored, by row name of the table. They do not depend on the mask.

    A class-specific map has two variants: its values (evidence for the class), and ", absolute", the absolute
    difference from the median over the brain (evidence for or against the class). A map with an arbitrary sign has the
    second variant only.
    """
    kind = map_kind(name)
    absolute = Variant(np.abs(values - np.median(values[has_brain])), 0.0)
    if kind.class_specific:
        return {name: Variant(values, 0.0), f"{name}, absolute": absolute}
    if kind.scored_by == "magnitude":
        return {name: absolute}
    return {name: Variant(values, 0.0 if kind.signed else float(values[has_brain].min()))}


def tumour_scores(variant: Variant, counts: VoxelCounts) -> dict[str, float]:
    """auc, pointing, mass and dice of a variant against the mask, over the voxels of the brain.

    auc: probability that a random tumour voxel has a higher value than a random other voxel; ties count half.
    pointing: share of tumour among the voxels with the highest value (the pointing game, with ties averaged).
    mass: share of the sum of values above `zero` that lies in the tumour. A uniform map has the tumour's share of the
    brain.
    dice: the highest Dice coefficient over all thresholds.

    ValueError if the brain has no voxel in the tumour, or none outside it.
    """
    has_brain = counts.has_brain
    levels, level_N = np.unique(variant.values[has_brain], return_inverse=True)
    inside = np.bincount(level_N, counts.tumour[has_brain], len(levels))[::-1]  # from the highest level to the lowest
    outside = np.bincount(level_N, (counts.brain - counts.tumour)[has_brain], len(levels))[::-1]
    if not inside.sum() or not outside.sum():
        raise ValueError("scores need brain voxels both inside and outside the tumour")
    above = np.cumsum(inside) - inside
    auc = float((outside * (above + inside / 2)).sum() / (inside.sum() * outside.sum()))
    selected = np.cumsum(inside + outside)
    dice = 2 * np.cumsum(inside) / (selected + inside.sum())
    weight = np.maximum(variant.values[has_brain] - variant.zero, 0)
    total = float((weight * counts.brain[has_brain]).sum())
    return {
        "auc": auc,
        "pointing": float(inside[0] / (inside[0] + outside[0])),
        "mass": float((weight * counts.tumour[has_brain]).sum()) / total if total else 0.0,
        "dice": float(dice.max()),
    }


def intensity_contrast(contrasts: Sequence[str]) -> str:
    """The contrast whose intensity is a trivial map: flair, or the last contrast if there is no flair."""
    return "flair" if "flair" in contrasts else contrasts[-1]


def trivial_names(contrasts: Sequence[str]) -> tuple[str, str]:
    """The row names of the trivial maps, which every map must beat."""
    return intensity_contrast(contrasts), "centre"


def trivial_maps(study: Study, patch_size: int) -> dict[str, np.ndarray]:
    """Maps (L,) without a model: mean intensity of each patch, and proximity to the centre of the brain.

    They are on the token grid, so that a comparison with the maps of a model does not depend on the resolution.
    """
    intensity, centre_name = trivial_names(study.contrasts)
    count = np.maximum(_sums(study.brain_ZYX, patch_size), 1)
    centre = np.argwhere(study.brain_ZYX).mean(axis=0).reshape(3, 1, 1, 1)
    index = np.stack(np.meshgrid(*map(np.arange, study.brain_ZYX.shape), indexing="ij"))
    distance_ZYX = np.sqrt(((index - centre) ** 2).sum(axis=0))
    proximity_ZYX = (distance_ZYX.max() - distance_ZYX) * study.brain_ZYX
    grey_ZYX = study.grey(study.volume_CZYX)[study.contrasts.index(intensity)]
    return {intensity: _sums(grey_ZYX, patch_size) / count, centre_name: _sums(proximity_ZYX, patch_size) / count}


def voxel_intensity(study: Study) -> tuple[Variant, VoxelCounts]:
    """The trivial intensity map at full resolution, which a map on the token grid does not have."""
    brain_ZYX = study.brain_ZYX
    contrast = study.contrasts.index(intensity_contrast(study.contrasts))
    values = study.grey(study.volume_CZYX)[contrast][brain_ZYX]
    return Variant(values, 0.0), VoxelCounts(np.ones(len(values)), _tumour(study)[brain_ZYX].astype(float))


def _tumour(study: Study) -> np.ndarray:
    """(Z, Y, X) bool; False everywhere if there is no mask."""
    return np.zeros_like(study.brain_ZYX) if study.segmentation_ZYX is None else study.segmentation_ZYX > 0


def _sums(volume_ZYX: np.ndarray, patch_size: int) -> np.ndarray:
    """(L,) float64 sums over patches."""
    return patch_sums(torch.from_numpy(volume_ZYX).unsqueeze(0).double(), patch_size)[0].numpy()
