"""Control experiments: inputs or labels without the information that the model is assumed to use.

A model that scores above chance on a control uses a leak or a confounder, such as the head's outline or the site.
"""

import hashlib
from typing import Literal

import numpy as np
from scipy.ndimage import binary_dilation

from util.data.dataset import PreparedVolumes
from util.data.folder import segmentation_path

Control = Literal["none", "background", "no_tumour", "shuffled_labels"]
MARGIN = 2  # voxels around the segmentation that are replaced too


def controlled(volumes: PreparedVolumes, control: Control, seed: int) -> PreparedVolumes:
    """The volumes of a control experiment.

    "background": brain voxels are noise, so that only the outline, size and position of the head are left.
    "no_tumour": the tumour and a margin are replaced by the tissue of the other hemisphere, which leaves no outline.
    "shuffled_labels": the known labels are permuted among the subjects.
    """
    if control == "background":
        return volumes.altered(_background)
    if control == "no_tumour":
        _check_segmentations(volumes)
        return volumes.altered(_no_tumour)
    if control == "shuffled_labels":
        assert volumes.labels is not None
        shuffled = np.random.default_rng(seed).permutation([volumes.labels[subject] for subject in volumes.subjects])
        return volumes.relabelled(dict(zip(volumes.subjects, shuffled.tolist(), strict=True)))
    return volumes


def _background(volumes: PreparedVolumes, subject: str, stored_CZYX: np.ndarray) -> np.ndarray:
    return noise_brain(stored_CZYX, subject)


def _no_tumour(volumes: PreparedVolumes, subject: str, stored_CZYX: np.ndarray) -> np.ndarray:
    mask_ZYX = volumes.segmentation(subject)
    assert mask_ZYX is not None, "_check_segmentations has seen it"
    return without_tumour(stored_CZYX, mask_ZYX > 0)


def _check_segmentations(volumes: PreparedVolumes) -> None:
    """Raise ValueError, before any training, if a subject has no segmentation."""
    missing = [each for each in volumes.subjects if not segmentation_path(volumes.root, each).exists()]
    if missing:
        more = f", and {len(missing) - 1} more subjects have none" if len(missing) > 1 else ""
        raise ValueError(
            f'--control no_tumour: subject "{missing[0]}" has no segmentation in {volumes.root}/seg_mask{more}; '
            "prepare them with their masks (prepare_data.py --seg NAME), or leave them out"
        )


def noise_brain(volume_CZYX: np.ndarray, subject: str) -> np.ndarray:
    """(C, Z, Y, X) with uniform noise wherever any contrast is above 0. The subject's name is the seed."""
    seed = int.from_bytes(hashlib.sha256(subject.encode()).digest()[:8], "little")
    noise_CZYX = np.random.default_rng(seed).integers(1, 256, volume_CZYX.shape, dtype=np.uint8)
    return np.where((volume_CZYX > 0).any(0), noise_CZYX, np.uint8(0))


def without_tumour(volume_CZYX: np.ndarray, mask_ZYX: np.ndarray) -> np.ndarray:
    """(C, Z, Y, X) with masked voxels replaced by their mirror image across x. If that is tumour or air too, they
    become the mean of the brain outside the mask."""
    mask_ZYX = binary_dilation(mask_ZYX, iterations=MARGIN)
    brain_ZYX = (volume_CZYX > 0).any(0)
    healthy_ZYX = brain_ZYX & ~mask_ZYX
    mirrored_CZYX = volume_CZYX[..., ::-1]
    usable_ZYX = healthy_ZYX[..., ::-1]
    replaced_ZYX = mask_ZYX & brain_ZYX
    filled_CZYX = volume_CZYX.copy()
    for filled_ZYX, mirrored_ZYX in zip(filled_CZYX, mirrored_CZYX):
        mean = filled_ZYX[healthy_ZYX].mean() if healthy_ZYX.any() else 0
        filled_ZYX[replaced_ZYX & usable_ZYX] = mirrored_ZYX[replaced_ZYX & usable_ZYX]
        filled_ZYX[replaced_ZYX & ~usable_ZYX] = np.uint8(mean)
    return filled_CZYX
