"""Random volumes and affines for the comparisons of preparation."""

from pathlib import Path

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation


def affine(generator: np.random.Generator, directions: np.ndarray, tilt_degrees: float) -> np.ndarray:
    """(4, 4) affine with anisotropic voxels, whose axes `directions` (3, 3) are tilted about every axis."""
    turned = Rotation.from_euler("xyz", generator.uniform(-tilt_degrees, tilt_degrees, 3), degrees=True).as_matrix()
    result = np.eye(4)
    result[:3, :3] = turned @ directions * generator.uniform(0.6, 3, 3)
    result[:3, 3] = generator.uniform(-90, 90, 3)
    return result


def save(path: Path, values: np.ndarray, matrix: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(values, matrix), path)
    return path


def head(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """float32 volume that is positive in a random ellipsoid, which may extend beyond the volume, and 0 outside."""
    places = np.moveaxis(np.indices(shape), 0, -1)
    middle, radius = generator.uniform(0.2, 0.8, 3) * shape, generator.uniform(0.15, 0.5, 3) * shape
    inside = (((places - middle) / np.maximum(radius, 1)) ** 2).sum(-1) <= 1
    return np.where(inside, generator.uniform(1, 900, shape), 0).astype(np.float32)
