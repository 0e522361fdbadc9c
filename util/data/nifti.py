"""Reading NIfTI files in canonical orientation, and refusing what cannot be trusted."""

import dataclasses
import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

GZIP_MAGIC = b"\x1f\x8b"
GRID_TOLERANCE = 0.1  # voxels by which corners of two contrasts of one study may differ


@dataclass(frozen=True)
class Volume:
    """A volume in canonical (RAS) orientation, axes (X, Y, Z), and how the file stored it."""

    path: Path
    data: np.ndarray
    affine: np.ndarray
    """(4, 4) from canonical index (x, y, z) to world mm."""
    stored_shape: tuple[int, ...]
    stored_affine: np.ndarray
    orientation: str
    """Axis codes as stored, for instance "LPS"."""


def read_image(path: Path) -> Volume:
    """A contrast, float32. ValueError for a file that is damaged, not 3-D, not finite, empty or constant."""
    volume = _read(path)
    if not np.isfinite(volume.data).all():
        count = int((~np.isfinite(volume.data)).sum())
        raise ValueError(f"{path} has {count} NaN or Inf voxels; repair it, for instance by setting them to 0")
    if volume.data.min() == volume.data.max():
        kind = "empty (all 0)" if volume.data.flat[0] == 0 else f"constant (all {volume.data.flat[0]:g})"
        raise ValueError(f"{path} is {kind}; convert it again from the original scan")
    return volume


def read_mask(path: Path) -> Volume:
    """A segmentation or brain mask, uint8. ValueError unless it holds whole numbers from 0 to 255."""
    volume = _read(path)
    data = volume.data
    if not (np.isfinite(data) & (data >= 0) & (data <= 255) & (data == np.rint(data))).all():
        raise ValueError(f"{path} should hold whole labels from 0 to 255 and does not; export the mask again")
    return dataclasses.replace(volume, data=data.astype(np.uint8))


def check_same_grid(volumes: Mapping[str, Volume]) -> None:
    """ValueError unless all volumes share one shape and place in space, within a tenth of a voxel."""
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


def _open(path: Path) -> nibabel.Nifti1Image:
    """The image in memory. Decompressed to the end: only there is the checksum, which nibabel.load never reaches."""
    content = path.read_bytes()
    if content.startswith(GZIP_MAGIC):
        content = gzip.decompress(content)
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        if kind.header_class.may_contain_header(content[: kind.header_class.sizeof_hdr]):
            return kind.from_bytes(content)
    raise ImageFileError("no NIfTI header")


def _read(path: Path) -> Volume:
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    try:
        image = _open(path)
        stored = np.dtype(image.get_data_dtype())
        if stored.fields is not None or stored.kind == "c":
            raise ValueError(f"{path} holds colours or complex numbers; a scan has one real number per voxel")
        shape = image.shape
        if len(shape) != 3 and (len(shape) != 4 or shape[3] != 1):
            raise ValueError(f"{path} has {len(shape)} dimensions {shape}; extract one 3-D volume from it")
        data = np.asarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
    except ImageFileError as error:
        raise ValueError(f"{path} is not a NIfTI file; convert it, for instance with dcm2niix") from error
    except (EOFError, OSError, zlib.error, HeaderDataError) as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); copy or convert it again") from error
    stored_affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(stored_affine).all() or abs(np.linalg.det(stored_affine[:3, :3])) < 1e-9:
        raise ValueError(f"{path} has no usable affine in its header; convert it again from the original scan")
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(data, stored_affine))
    return Volume(
        path=path,
        data=np.asarray(canonical.dataobj),
        affine=np.asarray(canonical.affine, dtype=np.float64),
        stored_shape=tuple(int(side) for side in shape),
        stored_affine=stored_affine,
        orientation="".join(nibabel.aff2axcodes(stored_affine)),
    )
