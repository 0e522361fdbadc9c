"""Crop to the brain, isotropic resampling onto the prepared grid, and the percentile window to 8 bits.

Axes here are (X, Y, Z), as in NIfTI; `prepare.py` transposes at the end.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter


@dataclass(frozen=True)
class Grid:
    """Where the prepared grid lies in the crop: crop index = step * prepared index + offset, per axis."""

    shape: tuple[int, int, int]
    step: np.ndarray
    """Voxels of the crop per prepared voxel, (3,)."""
    offset: np.ndarray
    """(3,)"""

    def affine(self, crop_affine: np.ndarray) -> np.ndarray:
        """(4, 4) from prepared index (x, y, z) to world mm, given the same of the crop."""
        to_crop = np.eye(4)
        to_crop[:3, :3] = np.diag(self.step)
        to_crop[:3, 3] = self.offset
        return crop_affine @ to_crop


def brain_box(brain: np.ndarray, margin: int) -> list[tuple[int, int]]:
    """[start, stop) per axis around the true voxels of `brain`, `margin` voxels wider where the volume allows."""
    box = []
    for axis, side in enumerate(brain.shape):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(brain.any(axis=others))
        box.append((max(0, int(occupied[0]) - margin), min(side, int(occupied[-1]) + 1 + margin)))
    return box


def crop_affine(affine: np.ndarray, box: list[tuple[int, int]]) -> np.ndarray:
    """(4, 4) from index in the crop `box` to world mm."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [start for start, _ in box]
    return moved


def fit_grid(crop_shape: tuple[int, ...], voxel_mm: np.ndarray, shape: tuple[int, int, int]) -> Grid:
    """The isotropic grid of `shape` centred on a crop, as fine as possible while the whole crop fits.

    voxel_mm: (3,) size of the crop's voxels. Axes on which the crop is shorter are padded equally on both sides.
    """
    crop_sides, sides = np.array(crop_shape, dtype=np.float64), np.array(shape, dtype=np.float64)
    spacing_mm = (crop_sides * voxel_mm / sides).max()
    step = spacing_mm / voxel_mm
    # voxel i covers [i - 0.5, i + 0.5]: the middles of crop and grid coincide
    return Grid(shape, step, (crop_sides - 1) / 2 - step * (sides - 1) / 2)


def resample_brain(brain: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The share of brain in each prepared voxel, float32 0..1, and the prepared brain mask (share above a half)."""
    share = _resample(brain.astype(np.float32), grid)
    return share, share > 0.5


def resample_image(image: np.ndarray, brain: np.ndarray, share: np.ndarray, grid: Grid) -> np.ndarray:
    """Linear interpolation of the brain's own values, float32; air never darkens the brain's edge."""
    return _resample(np.where(brain, image, 0).astype(np.float32), grid) / np.maximum(share, 1e-3)


def resample_labels(labels: np.ndarray, grid: Grid) -> np.ndarray:
    """Nearest neighbour, uint8: the label of the voxel that a prepared voxel's centre lies in, 0 outside the crop."""
    return _on_grid(labels, grid, order=0)


def window_to_uint8(
    image: np.ndarray, brain: np.ndarray, percentiles: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Brain voxels to 1..255 between the two percentiles of the brain, background 0; and the two intensities.

    ValueError if both percentiles are the same intensity.
    """
    low, high = (float(value) for value in np.percentile(image[brain], percentiles))
    if high <= low:
        raise ValueError(f"is constant inside the brain (all about {low:g})")
    scaled = np.rint(1 + 254 * (image - low) / (high - low)).clip(1, 255)
    return np.where(brain, scaled, 0).astype(np.uint8), (low, high)


def _resample(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Linear, after the Gaussian that a shrinking axis needs against aliasing."""
    sigma = np.sqrt(np.maximum(grid.step**2 - 1, 0)) / np.sqrt(8 * np.log(2))  # widths of voxels in quadrature
    if sigma.any():
        values = gaussian_filter(values, sigma, mode="constant", truncate=3)
    return _on_grid(values, grid, order=1)


def _on_grid(values: np.ndarray, grid: Grid, *, order: int) -> np.ndarray:
    """Air beyond the crop's last voxels, which reach to their outer faces: scipy's "constant" cuts at their centres."""
    offset: Any = grid.offset  # scipy takes one per axis; its stubs know only a number
    return affine_transform(values, grid.step, offset, output_shape=grid.shape, order=order, mode="grid-constant")
