"""What is odd about a scan that can be read: each doubt becomes a warning beside the result, none refuses the scan.

Arrays here are (X, Y, Z) in canonical orientation, as in `nifti.py`.
"""

from collections.abc import Iterable

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from scipy.ndimage import distance_transform_edt, label

BRIGHT = 0.25  # of a contrast's 98th percentile: fat, muscle, brain and fluid in some contrast, but no bone and no air
DEPTH_MM = 5.0  # scalp and face are thinner than twice this, the brain is thicker
COARSE_MM = 2.0  # fine enough for the scalp, and eight times faster than 1 mm
MAX_OUTSIDE = 0.1  # of the bright voxels
MAX_CUT = 0.15  # of the largest cross-section; a brainstem at the lower edge of an atlas grid is less
THICK_MM, UNEVEN = 3.0, 2.5  # voxel sides, and their ratio
FORM_TOLERANCE = 0.1  # voxels
ENDS = (("left", "right"), ("back", "front"), ("lower", "upper"))  # of the canonical axes


def form_doubt(image: nibabel.Nifti1Image) -> list[str]:
    """Whether the header's qform and sform, where it has both, put a corner of the volume to different places."""
    try:
        qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    except (ValueError, HeaderDataError):  # no rotation can be read from the qform; nibabel then uses what it can
        return []
    if qform is None or sform is None:
        return []
    corners = np.array(np.meshgrid(*((0, side - 1) for side in image.shape[:3]))).reshape(3, -1)
    shifts_mm = (qform - sform)[:3] @ np.vstack([corners, np.ones(8)])
    shift_mm = float(np.linalg.norm(shifts_mm, axis=0).max())
    if shift_mm <= FORM_TOLERANCE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return []
    return [f"qform and sform of its header put voxels up to {shift_mm:.1f} mm apart; the sform is used"]


def scan_doubts(brain: np.ndarray, contrasts: Iterable[np.ndarray], voxel_mm: np.ndarray) -> list[str]:
    """Thick slices, a brain cut by the field of view, and tissue around the brain.

    brain: bool (X, Y, Z), where any contrast is not 0; contrasts: their values; voxel_mm: (3,).
    """
    found = []
    if voxel_mm.max() >= THICK_MM and voxel_mm.max() >= UNEVEN * voxel_mm.min():
        sides = " x ".join(f"{side:.2g}" for side in voxel_mm)
        found.append(f"voxels of {sides} mm: slices are thick, what lies between them is interpolated")
    for end, share in cut_ends(brain).items():
        found.append(
            f"the brain reaches the {end} end of the field of view with {share:.0%} of its largest cross-section: "
            "it may be cut off"
        )
    outside = share_outside(brain, contrasts, voxel_mm)
    if outside > MAX_OUTSIDE:
        found.append(
            f"{outside:.0%} of the bright voxels lie outside the brain: the skull may not have been removed; strip it, "
            "for instance with HD-BET or SynthStrip"
        )
    return found


def cut_ends(brain: np.ndarray) -> dict[str, float]:
    """Ends of the field of view that a large part of the brain touches: cross-section there / the largest one."""
    found = {}
    for axis, names in enumerate(ENDS):
        areas = brain.sum(axis=tuple(other for other in range(3) if other != axis))
        for name, area in zip(names, (areas[0], areas[-1]), strict=True):
            if area > MAX_CUT * areas.max():
                found[name] = float(area / areas.max())
    return found


def share_outside(brain: np.ndarray, contrasts: Iterable[np.ndarray], voxel_mm: np.ndarray) -> float:
    """Which part of the bright voxels is not brain, judged by shape: 0..1.

    The largest body that remains when DEPTH_MM is peeled off all that is bright, grown back, is taken for the brain;
    scalp, face and neck are parted from it by the dark skull. 0 where nothing is that thick.
    """
    steps = tuple(slice(None, None, max(1, int(COARSE_MM / side))) for side in voxel_mm)
    sides_mm = np.array([side * step.step for side, step in zip(voxel_mm, steps, strict=True)])
    inside = brain[steps]
    bright = np.zeros_like(inside)
    for values in contrasts:
        values = np.where(inside, values[steps], 0)
        bright |= values > BRIGHT * np.percentile(values[inside], 98) if inside.any() else False
    padded = np.pad(bright, 1)  # the edge of the field of view is no tissue
    bodies, count = label(distance_transform_edt(padded, sampling=sides_mm) > DEPTH_MM)  # pyright: ignore[reportGeneralTypeIssues,reportOperatorIssue]
    if count == 0:
        return 0.0
    largest = bodies == np.bincount(bodies.ravel())[1:].argmax() + 1
    grown = distance_transform_edt(~largest, sampling=sides_mm) <= DEPTH_MM + COARSE_MM  # pyright: ignore[reportOperatorIssue]
    return float((padded & ~grown).sum() / padded.sum())
