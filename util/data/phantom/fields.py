"""Smooth random fields, for the variation of anatomy, tumour outline, texture and coil sensitivity in a phantom."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F


def smooth_field(generator: np.random.Generator, shape: tuple[int, ...], length: float) -> np.ndarray:
    """A field of `shape`, float32, with mean about 0, standard deviation about 1 and structures of about `length`
    voxels."""
    coarse_shape = [max(3, round(side / (length / 2)) + 3) for side in shape]  # half a structure per coarse voxel
    coarse = gaussian_filter(generator.standard_normal(coarse_shape), 1.0, mode="wrap")
    coarse /= coarse.std()
    fine = F.interpolate(torch.from_numpy(coarse).float()[None, None], size=shape, mode="trilinear", align_corners=True)
    return fine[0, 0].numpy()
