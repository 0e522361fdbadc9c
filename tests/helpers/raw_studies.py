"""Small raw studies for the tests of preparation: an uneven ellipsoid of brain in air, in any layout."""

from pathlib import Path

import nibabel
import numpy as np

from util.data.folder import CONTRASTS
from util.data.raw.layouts import RawStudy

SHAPE = (20, 24, 18)  # x, y, z
AFFINE = np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 50], [0, 0, 2.5, -10], [0, 0, 0, 1]])  # LPS, uneven voxels


def brain_volume(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """int16 (X, Y, Z), 100..900 inside an ellipsoid, 0 outside."""
    index = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    inside = (index**2).sum(0) < 0.6
    values = np.random.default_rng(seed).integers(100, 900, shape)
    return np.where(inside, values, 0).astype(np.int16)


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    return path


def write_study(root: Path, subject: str, *, seg: bool = True, seed: int = 0) -> RawStudy:
    """The study in BraTS' layout below `root`."""
    files = {}
    for position, contrast in enumerate(CONTRASTS):
        volume = brain_volume(10 * seed + position)
        files[contrast] = write_nifti(root / subject / f"{subject}_{contrast}.nii.gz", volume)
    if seg:
        labels = np.zeros(SHAPE, np.uint8)
        labels[8:12, 8:13, 7:11] = 2
        labels[9:11, 9:12, 8:10] = 4
        files["seg"] = write_nifti(root / subject / f"{subject}_seg.nii.gz", labels)
    return RawStudy(subject, files)
