"""Individual anatomy of phantoms: the MNI152 tissue maps, moved, scaled and deformed for each subject.

Source: the ICBM 2009a symmetric T1, grey-matter and white-matter maps at 1 mm in the nilearn package (Fonov et al.,
NeuroImage 54, 2011; Fonov et al., NeuroImage 47 Suppl. 1, 2009). CSF is the rest of the brain.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

from util.data.phantom.fields import smooth_field

BRATS_MM = (240, 240, 155)  # extent of the BraTS grid along x, y, z


@dataclass(frozen=True)
class Anatomy:
    """Maps (X, Y, Z) on the subject's grid, float32 except for the brain mask."""

    brain: np.ndarray
    """Brain mask, bool."""
    gm: np.ndarray
    wm: np.ndarray
    csf: np.ndarray
    """`gm`, `wm`, `csf`: fractions of grey matter, white matter and fluid. They add up to 1 in the brain, 0 outside."""
    t1: np.ndarray
    """T1 template, 0..1."""
    mni_mm: np.ndarray
    """(3, X, Y, Z): the MNI coordinates that each voxel is sampled from."""


def brats_grid(spacing: float) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape and affine of the BraTS grid (axes L, P, S) at `spacing` mm; 240 x 240 x 155 at 1 mm."""
    shape = (round(BRATS_MM[0] / spacing), round(BRATS_MM[1] / spacing), round(BRATS_MM[2] / spacing + 0.01))
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[1, 3] = 239.0
    return shape, affine


def random_anatomy(generator: np.random.Generator, spacing: float) -> Anatomy:
    """The anatomy of one subject: rotated by up to 5 degrees, scaled to 0.90-0.98 per axis, smoothly deformed, with its
    own cortical folds."""
    shape, affine = brats_grid(spacing)
    maps_CXYZ, centre_mm, to_index = _templates(spacing)
    index = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape), indexing="ij"))
    middle = (np.array(shape, np.float32) - 1) / 2
    offset = (index - middle[:, None, None, None]) * np.diag(affine)[:3, None, None, None]
    move = Rotation.from_euler("xyz", generator.uniform(-5, 5, 3), degrees=True).as_matrix()
    move = move @ np.diag(1 / generator.uniform(0.90, 0.98, 3))
    mni_mm = np.einsum("ij,jxyz->ixyz", move.astype(np.float32), offset.astype(np.float32))
    mni_mm += centre_mm[:, None, None, None]
    for axis in range(3):
        mni_mm[axis] += 3.0 * smooth_field(generator, shape, 40 / spacing)
        mni_mm[axis] += 1.0 * smooth_field(generator, shape, 14 / spacing)
    t1, gm, wm, csf = _sample(maps_CXYZ, mni_mm - to_index[:, None, None, None])
    brain = gm + wm + csf > 0.5
    # an average of 152 people has no sulci: sharpen it, and vary the fractions smoothly for individual folds
    gm, wm, csf = (
        weight * fraction**1.6 * np.exp(0.5 * smooth_field(generator, shape, 8 / spacing))
        for weight, fraction in ((1.0, gm), (1.0, wm), (1.8, csf))
    )
    total = np.where(brain, gm + wm + csf, 1.0)
    gm, wm, csf = (np.where(brain, fraction / total, 0).astype(np.float32) for fraction in (gm, wm, csf))
    return Anatomy(brain=brain, gm=gm, wm=wm, csf=csf, t1=np.where(brain, t1, 0), mni_mm=mni_mm)


def _sample(maps_CXYZ: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Linear interpolation of (C, X, Y, Z) at fractional indices (3, X', Y', Z'); 0 outside."""
    sides = np.array(maps_CXYZ.shape[1:], np.float32)[:, None, None, None]
    relative = np.moveaxis((index * 2 + 1) / sides - 1, 0, -1)[..., ::-1]  # grid_sample reads (z, y, x) in [-1, 1]
    grid = torch.from_numpy(np.ascontiguousarray(relative, dtype=np.float32))[None]
    return F.grid_sample(torch.from_numpy(maps_CXYZ)[None], grid, align_corners=False)[0].numpy()


@functools.lru_cache(maxsize=2)
def _templates(spacing: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1, GM, WM and CSF as (4, X, Y, Z) at 1 mm, the brain's centre in mm, and the position of index 0 in mm."""
    from nilearn import datasets  # imported here because it takes seconds

    images = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    ]
    t1, gm, wm = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    origin = np.asarray(images[0].affine, dtype=np.float64)[:3, 3]
    brain = t1 > 0
    csf = np.where(brain, np.clip(1 - gm - wm, 0, 1), 0)
    maps = np.stack([t1, gm * brain, wm * brain, csf]).astype(np.float32)
    if spacing > 1:  # a larger voxel averages over its volume
        maps = np.stack([gaussian_filter(channel, 0.4 * spacing) for channel in maps])
    occupied = np.argwhere(brain)
    centre = (occupied.min(0) + occupied.max(0)) / 2 + origin
    return maps, centre.astype(np.float32), origin.astype(np.float32)
