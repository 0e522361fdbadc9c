"""Cropping to the brain, isotropic resampling to the prepared grid, and the percentile window to 8 bits.

Axes are (X, Y, Z), as in NIfTI; util/data/prepare/study.py transposes the result.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


@dataclass(frozen=True)
class VoxelGrid:
    """The position of the prepared grid in the crop: crop index = step * prepared index + offset, on each axis."""

    shape: tuple[int, int, int]
    step: np.ndarray
    """Voxels of the crop per prepared voxel, (3,)."""
    offset: np.ndarray
    """Crop index of the prepared index 0, (3,)."""

    def affine(self, crop_affine: np.ndarray) -> np.ndarray:
        """(4, 4) from the prepared index (x, y, z) to world mm. crop_affine: from the crop's index to world mm."""
        to_crop = np.eye(4)
        to_crop[:3, :3] = np.diag(self.step)
        to_crop[:3, 3] = self.offset
        return crop_affine @ to_crop


def brain_box(brain: np.ndarray, margin: int) -> list[tuple[int, int]]:
    """[start, stop) on each axis around the true voxels of `brain`, with a margin of voxels as far as the volume has
    them."""
    box = []
    for axis, side in enumerate(brain.shape):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(brain.any(axis=others))
        box.append((max(0, int(occupied[0]) - margin), min(side, int(occupied[-1]) + 1 + margin)))
    return box


def crop_affine(affine: np.ndarray, box: list[tuple[int, int]]) -> np.ndarray:
    """(4, 4) from the index in the crop `box` to world mm."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [start for start, _ in box]
    return moved


def fit_grid(crop_shape: tuple[int, ...], voxel_mm: np.ndarray, shape: tuple[int, int, int]) -> VoxelGrid:
    """The finest isotropic grid of `shape` that is centred on a crop and covers all of it.

    voxel_mm: (3,) size of the crop's voxels. Shorter axes of the crop are padded equally on both sides.
    """
    crop_sides, sides = np.array(crop_shape, dtype=np.float64), np.array(shape, dtype=np.float64)
    spacing_mm = (crop_sides * voxel_mm / sides).max()
    step = spacing_mm / voxel_mm
    # voxel i covers [i - 0.5, i + 0.5], and the centres of crop and grid coincide
    return VoxelGrid(shape, step, (crop_sides - 1) / 2 - step * (sides - 1) / 2)


def resample_brain(brain: np.ndarray, grid: VoxelGrid) -> tuple[np.ndarray, np.ndarray]:
    """The fraction of brain in each prepared voxel, float32, and the prepared brain mask (fraction above a half)."""
    fraction = _resample(brain.astype(np.float32), grid)
    return fraction, fraction > 0.5


def resample_image(image: np.ndarray, brain: np.ndarray, fraction: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Linear interpolation of the brain's values alone, float32, so that air does not darken the edge of the brain.

    fraction: the first result of resample_brain.
    """
    return _resample(np.where(brain, image, 0).astype(np.float32), grid) / np.maximum(fraction, 1e-3)


def resample_labels(labels: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Nearest-neighbour interpolation, uint8; 0 outside the crop."""
    return _on_grid(labels, grid, order=0)


def window_to_uint8(
    image: np.ndarray, brain: np.ndarray, percentiles: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Map brain voxels to 1..255 between two percentiles of the brain, and background to 0.

    Returns the volume and the intensities at the two percentiles. Raises ValueError if they are equal.
    """
    low, high = (float(value) for value in np.percentile(image[brain], percentiles))
    if high <= low:
        raise ValueError(f"is constant inside the brain (all about {low:g})")
    scaled = np.rint(1 + 254 * (image - low) / (high - low)).clip(1, 255)
    return np.where(brain, scaled, 0).astype(np.uint8), (low, high)


def _resample(values: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Linear interpolation, after a Gaussian filter against aliasing on axes that become coarser."""
    sigma = np.sqrt(np.maximum(grid.step**2 - 1, 0)) / np.sqrt(8 * np.log(2))  # voxel widths add in quadrature
    if sigma.any():
        values = gaussian_filter(values, sigma, mode="constant", truncate=3)
    return _on_grid(values, grid, order=1)


def _on_grid(values: np.ndarray, grid: VoxelGrid, *, order: int) -> np.ndarray:
    """Interpolate on the grid; 0 beyond the outer faces of the crop (scipy's "constant" would cut at voxel centres)."""
    offset: Any = grid.offset  # scipy accepts an array; its type stubs know only a number
    return affine_transform(values, grid.step, offset, output_shape=grid.shape, order=order, mode="grid-constant")
