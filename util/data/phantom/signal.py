"""The four contrasts of a phantom from its tissue, with coil sensitivity and Rician noise."""

import numpy as np
from scipy.ndimage import gaussian_filter

from util.data.folder import CONTRASTS
from util.data.phantom.anatomy import Anatomy
from util.data.phantom.fields import smooth_field
from util.data.phantom.tumour import Tumour

# Signal of (grey matter, white matter, fluid): fluid is dark on t1 and flair, bright on t2.
TISSUE = {
    "t1": (0.60, 0.85, 0.22),
    "t2": (0.62, 0.44, 1.00),
    "t1ce": (0.62, 0.86, 0.23),
    "flair": (0.60, 0.47, 0.13),
}
# Vessels enhance about as much as tumours do. If enhancing tumours were the brightest voxels, the percentile window
# would make the brightness of healthy tissue depend on the tumour's class.
VESSEL_SIGNAL = (1.2, 2.6)


def render_contrasts(
    generator: np.random.Generator, anatomy: Anatomy, tumour: Tumour, spacing: float
) -> dict[str, np.ndarray]:
    """The image (X, Y, Z) int16 of every contrast. Background is exactly 0, brain at least 1; the gain is random."""
    shape = anatomy.brain.shape
    vessels = _vessels(generator, anatomy, spacing)
    parts = {  # smoothed, because a voxel at the border holds both tissues
        label: gaussian_filter((tumour.labels == label).astype(np.float32), 0.7 / spacing)
        for label in tumour.appearance
    }
    healthy = np.clip(1 - sum(parts.values()), 0, 1)
    enhancement = generator.uniform(*VESSEL_SIGNAL)
    images = {}
    for contrast in CONTRASTS:
        grey, white, fluid = TISSUE[contrast]
        signal = grey * anatomy.gm + white * anatomy.wm + fluid * anatomy.csf
        if contrast in ("t1", "t1ce"):  # detail that only the T1 template has, such as the deep nuclei
            signal = 0.65 * signal + 0.35 * anatomy.t1 * 0.95
        if contrast == "t1ce":
            signal = signal + enhancement * vessels
        signal = signal * healthy
        for label, weight in parts.items():
            signal = signal + tumour.appearance[label][contrast] * weight * tumour.texture
        signal = signal * np.exp(generator.uniform(0.05, 0.15) * smooth_field(generator, shape, 130 / spacing))
        noise = generator.uniform(0.015, 0.035) * generator.standard_normal((2, *shape), dtype=np.float32)
        measured = np.sqrt((signal + noise[0]) ** 2 + noise[1] ** 2) * generator.uniform(400, 1200)
        images[contrast] = np.where(anatomy.brain, np.clip(np.rint(measured), 1, 32000), 0).astype(np.int16)
    return images


def _vessels(generator: np.random.Generator, anatomy: Anatomy, spacing: float) -> np.ndarray:
    """Contrast agent in the fluid near surface and midline, so that bright voxels alone do not indicate a tumour."""
    spots = smooth_field(generator, anatomy.brain.shape, 5 / spacing) > 1.4
    return gaussian_filter((spots & (anatomy.csf > 0.3)).astype(np.float32), 0.6 / spacing)
