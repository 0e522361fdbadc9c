"""Writing volumes as NIfTI files, which viewers overlay on the original images."""

import gzip
from pathlib import Path

import nibabel
import numpy as np

from util.files.atomic import atomic_write


def write_nifti(path: Path, volume_ZYX: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume (Z, Y, X) as float32 .nii.gz. affine: (4, 4) from NIfTI index (x, y, z) to world mm."""
    image = nibabel.Nifti1Image(np.ascontiguousarray(volume_ZYX.transpose(2, 1, 0), dtype=np.float32), affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as file:
        file.write(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
