"""Volumes to NIfTI files that overlay on the prepared images in any viewer."""

import gzip
from pathlib import Path

import nibabel
import numpy as np

from util.files.atomic import atomic_write


def write_nifti(path: Path, volume_ZYX: np.ndarray, affine: np.ndarray) -> None:
    """Write (Z, Y, X) as float32 .nii.gz; `affine` (4, 4) takes NIfTI indices (x, y, z) to world mm."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume_ZYX.transpose(2, 1, 0), dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as file:
        file.write(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
