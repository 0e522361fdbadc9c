"""Read NIfTI, Analyze and MGH files in canonical orientation, and refuse files with implausible content."""

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import OrientationError
from nibabel.spatialimages import HeaderDataError

from util.data.raw.nifti_file import open_nifti
from util.data.raw.orientation import oriented_affine
from util.data.raw.scan_warnings import header_warnings

MIN_SIDE_MM, MAX_SIDE_MM = 1e-3, 1e3  # plausible sides of a voxel
MAX_SHIFT_MM = 1e6  # plausible distance of the first voxel from the scanner's centre
MIN_BACKGROUND = 0.1  # part of a volume that its background fills
ROUNDING = 1e-3  # distance from a whole number that a label may have
GRID_TOLERANCE = 0.1  # voxels by which the corners of two contrasts of one study may differ


@dataclass(frozen=True)
class Volume:
    """A volume in canonical (RAS) orientation, axes (X, Y, Z), with the shape and affine of its file."""

    path: Path
    data: np.ndarray
    affine: np.ndarray
    """(4, 4) from the canonical index (x, y, z) to world mm."""
    stored_shape: tuple[int, ...]
    stored_affine: np.ndarray
    orientation: str
    """Axis codes of the file, for instance "LPS"."""
    warnings: tuple[str, ...] = ()
    """Warnings about the header."""


def read_image(path: Path, assumed_orientation: str | None = None) -> Volume:
    """A contrast, float32. assumed_orientation: axis codes for a file whose header has none.

    Raises ValueError for a file that is damaged, not 3-D, not finite, empty or constant."""
    volume = _read(path, assumed_orientation)
    volume = _with_background_0(volume)
    if not np.isfinite(volume.data).all():
        count = int((~np.isfinite(volume.data)).sum())
        raise ValueError(f"{path} has {count} NaN or Inf voxels; repair it, for instance by setting them to 0")
    if volume.data.min() == volume.data.max():
        kind = "empty (all 0)" if volume.data.flat[0] == 0 else f"constant (all {volume.data.flat[0]:g})"
        raise ValueError(f"{path} is {kind}; convert it again from the original scan")
    return volume


def read_mask(path: Path, assumed_orientation: str | None = None) -> Volume:
    """A segmentation or brain mask, uint8. Raises ValueError unless all values are whole numbers from 0 to 255."""
    volume = _read(path, assumed_orientation)
    data = volume.data
    whole = np.rint(data)
    if not (np.isfinite(data) & (whole >= 0) & (whole <= 255) & (abs(data - whole) <= ROUNDING)).all():
        raise ValueError(f"{path} has values that are no whole numbers from 0 to 255; export the mask again")
    return dataclasses.replace(volume, data=whole.astype(np.uint8))


def _with_background_0(volume: Volume) -> Volume:
    """The volume with 0 for a background of NaN, as SPM writes it, or of another constant, as z-scoring leaves it.

    A background fills all corners and MIN_BACKGROUND of the volume.
    """
    data = volume.data
    corner = data[0, 0, 0]
    is_background = np.isnan(data) if np.isnan(corner) else data == corner
    corners = tuple(slice(None, None, max(1, side - 1)) for side in data.shape)
    if corner == 0 or np.isinf(corner) or not is_background[corners].all():
        return volume
    if not MIN_BACKGROUND <= is_background.mean() < 1:
        return volume
    warnings = volume.warnings
    if np.isnan(corner):
        warnings += (f"{is_background.mean():.0%} of the voxels are NaN and are taken as background",)
    return dataclasses.replace(volume, data=np.where(is_background, np.float32(0), data), warnings=warnings)


def check_same_grid(volumes: Mapping[str, Volume]) -> None:
    """Raise ValueError unless all volumes have one shape and one position in space, to a tenth of a voxel."""
    (first_name, first), *others = volumes.items()
    voxel_mm = np.linalg.norm(first.affine[:3, :3], axis=0).min()
    for name, other in others:
        if other.data.shape != first.data.shape:
            difference = f"{other.data.shape} and {first.data.shape} voxels"
        else:
            corners = np.array(np.meshgrid(*((0, side - 1) for side in first.data.shape))).reshape(3, -1)
            shifts_mm = (other.affine - first.affine)[:3] @ np.vstack([corners, np.ones(8)])
            shift_mm = np.linalg.norm(shifts_mm, axis=0).max()
            if shift_mm <= GRID_TOLERANCE * voxel_mm:
                continue
            difference = f"corners {shift_mm:.2f} mm apart"
        raise ValueError(
            f"{name} and {first_name} are on different grids ({difference}): {other.path}, {first.path}; "
            "register and resample them to one grid first"
        )


def _read(path: Path, assumed_orientation: str | None) -> Volume:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        image = open_nifti(path)
        shape = image.shape
        with np.errstate(over="ignore", invalid="ignore"):  # values beyond float32 become Inf and are refused
            data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
    except ImageFileError as error:
        raise ValueError(
            f"{path} is not a NIfTI, Analyze or MGH file; convert it, for instance with dcm2niix"
        ) from error
    except (EOFError, OSError, zlib.error, HeaderDataError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); copy or convert it again") from error
    stored_affine, warnings = oriented_affine(image, path, assumed_orientation)
    try:
        canonical = _canonical(data, stored_affine)
    except (np.linalg.LinAlgError, OrientationError, HeaderDataError):
        canonical = None
    if canonical is None:
        raise ValueError(f"{path} has no usable affine in its header; convert it again from the original scan")
    return Volume(
        path=path,
        data=np.asarray(canonical.dataobj),
        affine=np.asarray(canonical.affine, dtype=np.float64),
        stored_shape=tuple(int(side) for side in shape),
        stored_affine=stored_affine,
        orientation="".join(nibabel.aff2axcodes(stored_affine)),
        warnings=(*warnings, *header_warnings(image)),
    )


def _canonical(data: np.ndarray, affine: np.ndarray) -> nibabel.Nifti1Image | None:
    """The image with axes to the right, front and top; None if `affine` does not map voxels to millimetres."""
    if not np.isfinite(affine).all():
        return None
    sides_mm = np.linalg.norm(affine[:3, :3], axis=0)
    if (sides_mm < MIN_SIDE_MM).any() or (sides_mm > MAX_SIDE_MM).any() or abs(affine[:3, 3]).max() > MAX_SHIFT_MM:
        return None
    if abs(np.linalg.det(affine[:3, :3] / sides_mm)) < 1e-3:  # axes in one plane
        return None
    return nibabel.as_closest_canonical(nibabel.Nifti1Image(data, affine))
