"""Prepare one study, from raw NIfTI files to prepared volumes in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt

from util.data.folder import CONTRASTS
from util.data.prepare.resample import (
    brain_box,
    crop_affine,
    fit_grid,
    resample_brain,
    resample_image,
    resample_labels,
    window_to_uint8,
)
from util.data.raw.layouts import RawStudy
from util.data.raw.nifti import Volume, check_same_grid, read_image, read_mask
from util.data.raw.scan_warnings import same_images, scan_warnings

MAX_TUMOUR, MAX_TUMOUR_ML = 0.4, 700  # part of the brain, and volume, that a tumour with its oedema does not exceed
MAX_GIVEN_TUMOUR = 0.9  # part of the brain that a segmentation named by the user may cover
MIN_BRAIN = 0.04  # smallest part of the non-zero voxels that is a brain, in a scan of head and neck
MAX_EMPTY, RIM_MM = 0.05, 4.0  # part of the brain that may be 0 in one contrast, and depth of its rim
MAX_FILL = 0.9  # largest plausible fraction of non-zero voxels in a skull-stripped scan


@dataclass(frozen=True)
class Settings:
    """The settings that determine prepared values. The manifest records them for every subject."""

    size: tuple[int, int, int] = (160, 160, 160)
    """(Z, Y, X) voxels."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the brain's intensities that become 1 and 255."""
    margin: int = 1
    """Original voxels kept around the brain."""

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 8:
            raise ValueError(f"--size is {self.size}; give one number or three (Z Y X), each at least 8")
        low, high = self.percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"--percentiles are {low} {high}; give two numbers with 0 <= low < high <= 100")
        if self.margin < 0:
            raise ValueError(f"--margin is {self.margin}; give 0 or more voxels")

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON values, for the manifest and config.json."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Settings":
        """The inverse of as_json."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()}
        return cls(**values)


@dataclass(frozen=True)
class Prepared:
    """Volumes uint8 (Z, Y, X) on one grid, and how they were prepared."""

    volumes: dict[str, np.ndarray]
    segmentation: np.ndarray | None
    affine: np.ndarray
    """(4, 4) from the index (x, y, z) to world mm."""
    crop: list[tuple[int, int]]
    window: dict[str, tuple[float, float]]
    source: Volume
    """The first contrast, with the raw file's shape, affine and orientation."""
    warnings: list[str]


def prepare_study(study: RawStudy, settings: Settings, contrasts: Sequence[str] = CONTRASTS) -> Prepared:
    """Read, check, crop, resample and window the contrasts of `study` and its segmentation, if it has one.

    Raises ValueError with the file at fault and the fix.
    """
    if study.problem is not None:
        raise ValueError(study.problem)
    assumed = study.assumed_orientation
    images = {contrast: read_image(study.files[contrast], assumed) for contrast in contrasts}
    masks = {role: read_mask(study.files[role], assumed) for role in ("seg", "brain") if role in study.files}
    check_same_grid({**images, **masks})
    brain = _brain(images, masks)
    first = images[contrasts[0]]
    if "seg" in masks:
        _check_tumour(masks["seg"], brain, study.seg_is_given)
    warnings = _of_files({**images, **masks})
    warnings += _warnings(brain, images, masks.get("seg"))
    box = brain_box(brain, settings.margin)
    inside = tuple(slice(start, stop) for start, stop in box)
    brain = brain[inside]
    size_z, size_y, size_x = settings.size
    grid = fit_grid(brain.shape, np.linalg.norm(first.affine[:3, :3], axis=0), (size_x, size_y, size_z))
    fraction, prepared_brain = resample_brain(brain, grid)
    if not prepared_brain.any():
        raise ValueError(f"{first.path}: the brain vanishes at size {settings.size}; give a larger --size")
    volumes, window = {}, {}
    for contrast, image in images.items():
        resampled = resample_image(image.data[inside], brain, fraction, grid)
        try:
            volume, window[contrast] = window_to_uint8(resampled, prepared_brain, settings.percentiles)
        except ValueError as error:
            raise ValueError(f"{image.path} {error}; convert it again from the original scan") from error
        volumes[contrast] = _to_zyx(volume)
    segmentation = _to_zyx(resample_labels(masks["seg"].data[inside], grid)) if "seg" in masks else None
    return Prepared(
        volumes=volumes,
        segmentation=segmentation,
        affine=grid.affine(crop_affine(first.affine, box)),
        crop=box,
        window=window,
        source=first,
        warnings=warnings,
    )


def _brain(images: Mapping[str, Volume], masks: Mapping[str, Volume]) -> np.ndarray:
    """The brain, bool (X, Y, Z): non-zero in any contrast, and inside the brain mask if there is one."""
    brain = np.any([image.data != 0 for image in images.values()], axis=0)
    if "brain" in masks:
        tissue = brain.sum()
        brain &= masks["brain"].data > 0
        if not brain.any():
            raise ValueError(f"{masks['brain'].path} does not overlap the images; remove it or export it again")
        if (covered := brain.sum() / tissue) < MIN_BRAIN:
            raise ValueError(
                f"{masks['brain'].path} covers {covered:.1%} of the image and is taken for the mask of the brain; name "
                "that mask by --brain_mask, and a tumour by --seg"
            )
    return brain


def _check_tumour(segmentation: Volume, brain: np.ndarray, is_given: bool) -> None:
    """Raise ValueError if the segmentation is too large for a tumour, such as a mask of the brain."""
    labelled = segmentation.data > 0
    covered = float((labelled & brain).sum() / brain.sum())
    millilitres = float(labelled.sum() * abs(np.linalg.det(segmentation.affine[:3, :3])) / 1000)
    largest, largest_ml = (MAX_GIVEN_TUMOUR, np.inf) if is_given else (MAX_TUMOUR, MAX_TUMOUR_ML)
    if covered > largest or millilitres > largest_ml:
        raise ValueError(
            f"{segmentation.path} covers {covered:.0%} of the brain ({millilitres:.0f} ml) and is no tumour, perhaps "
            "the mask of the brain or a segmentation of tissue; name the tumour's segmentation by --seg (none: use no "
            "segmentation) and the mask of the brain by --brain_mask"
        )


def _warnings(brain: np.ndarray, images: Mapping[str, Volume], segmentation: Volume | None) -> list[str]:
    voxel_mm = np.linalg.norm(next(iter(images.values())).affine[:3, :3], axis=0)
    warnings = scan_warnings(brain, [image.data for image in images.values()], voxel_mm)
    if brain.mean() > MAX_FILL and not any("skull" in warning for warning in warnings):
        warnings.append("almost no voxel is 0: the skull may not have been removed, or air is not 0")
    if segmentation is not None and not segmentation.data.any():
        warnings.append("the segmentation is empty")
    for contrast, image in images.items():
        empty = (image.data == 0) & brain
        if empty.sum() > MAX_EMPTY * brain.sum() and _is_empty_inside(empty, brain, voxel_mm):
            warnings.append(f"{contrast} is 0 in {empty.sum() / brain.sum():.0%} of the brain: it may be cut off")
    return warnings + same_images(brain, {contrast: image.data for contrast, image in images.items()})


def _of_files(volumes: Mapping[str, Volume]) -> list[str]:
    """The warnings about the files, each once, with the files that have it."""
    roles: dict[str, list[str]] = {}
    for role, volume in volumes.items():
        for warning in volume.warnings:
            roles.setdefault(warning, []).append(role)
    return [f"{', '.join(names)}: {warning}" for warning, names in roles.items()]


def _is_empty_inside(empty: np.ndarray, brain: np.ndarray, voxel_mm: np.ndarray) -> bool:
    """Whether voxels are empty beyond the rim, where masks of contrasts differ by interpolation."""
    depth_mm: Any = distance_transform_edt(np.pad(brain, 1), sampling=voxel_mm)
    inside = depth_mm[1:-1, 1:-1, 1:-1] > RIM_MM
    return bool(not inside.any() or empty[inside].mean() > MAX_EMPTY)


def _to_zyx(volume: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(volume.transpose(2, 1, 0))
