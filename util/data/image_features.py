"""Simple features of a prepared subject for baselines: size and position of the tumour, intensities of the brain."""

import numpy as np

from util.data.dataset import PreparedVolumes

PERCENTILES = (10, 50, 90)
LEVELS = np.arange(256)


def tumour_features(volumes: PreparedVolumes, subject: str) -> dict[str, float]:
    """Tumour volume as a share of the brain and its logarithm; centre along z, y, x and distance from the mid-plane as
    shares of the brain's extent; spread in voxels. NaN without a segmentation, or if it is empty."""
    mask_ZYX = volumes.segmentation(subject)
    brain_ZYX = (volumes.stored_volume(subject) > 0).any(0)
    names = ["volume", "log_volume", "z", "y", "x", "off_midline", "spread"]
    if mask_ZYX is None or not (mask_ZYX > 0).any() or not brain_ZYX.any():
        return dict.fromkeys(names, float("nan"))
    inside, brain = np.argwhere(mask_ZYX > 0), np.argwhere(brain_ZYX)
    first, extent = brain.min(0), np.maximum(np.ptp(brain, axis=0), 1)
    centre = (inside.mean(0) - first) / extent
    share = len(inside) / len(brain)
    spread = float(np.sqrt(inside.var(0).sum()))
    return dict(zip(names, [share, float(np.log(share)), *centre.tolist(), abs(float(centre[2]) - 0.5), spread]))


def intensity_features(volumes: PreparedVolumes, subject: str) -> dict[str, float]:
    """Mean, standard deviation and percentiles of every contrast over the brain, in stored units 0 to 255."""
    volume_CZYX = volumes.stored_volume(subject)
    brain_ZYX = (volume_CZYX > 0).any(0)
    features = {}
    for contrast, volume_ZYX in zip(volumes.contrasts, volume_CZYX):
        counts = np.bincount(volume_ZYX[brain_ZYX], minlength=256)
        total = max(int(counts.sum()), 1)
        mean = float(counts @ LEVELS / total)
        features[f"{contrast}_mean"] = mean
        features[f"{contrast}_deviation"] = float(np.sqrt(counts @ (LEVELS - mean) ** 2 / total))
        below = np.cumsum(counts) / total
        for percent in PERCENTILES:
            features[f"{contrast}_p{percent}"] = float(np.searchsorted(below, percent / 100))
    return features
