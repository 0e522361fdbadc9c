"""Warnings about a scan that can be read but may be unsuitable. They are reported with the result and refuse no scan.

Arrays are (X, Y, Z) in canonical orientation, as in util/data/raw/nifti.py.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from scipy.ndimage import distance_transform_edt, label

BRIGHT = 0.25  # fraction of a contrast's 98th percentile that soft tissue and fluid exceed, but bone and air do not
DEPTH_MM = 5.0  # half the thickness that separates the brain (thicker) from scalp and face (thinner)
COARSE_MM = 2.0  # sampling distance, fine enough for the scalp and eight times faster than 1 mm
MAX_OUTSIDE = 0.1  # largest fraction of bright voxels outside the brain
MAX_CUT = 0.15  # largest cut area relative to the largest cross-section; a brainstem at the edge has less
THICK_MM, MAX_RATIO = 3.0, 2.5  # side of a thick voxel, and ratio of its longest to its shortest side
SAME, SAMPLED = 0.999, 100_000  # correlation of one image saved twice, and voxels that it is computed from
FORM_TOLERANCE = 0.1  # voxels by which qform and sform may differ
ENDS = (("left", "right"), ("back", "front"), ("lower", "upper"))  # of the canonical axes


def header_warnings(image: Any) -> list[str]:
    """A warning if the header has a qform and a sform that place a corner of the volume differently."""
    if not isinstance(image, nibabel.Nifti1Pair):  # other formats have one affine at most
        return []
    try:
        qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    except (ValueError, HeaderDataError):  # an invalid qform, which nibabel does not use
        return []
    if qform is None or sform is None:
        return []
    corners = np.array(np.meshgrid(*((0, side - 1) for side in image.shape[:3]))).reshape(3, -1)
    shifts_mm = (qform - sform)[:3] @ np.vstack([corners, np.ones(8)])
    shift_mm = float(np.linalg.norm(shifts_mm, axis=0).max())
    if shift_mm <= FORM_TOLERANCE * np.linalg.norm(sform[:3, :3], axis=0).min():
        return []
    directions = ["".join(nibabel.aff2axcodes(form)) for form in (qform, sform)]
    turned = f" and name other directions ({' and '.join(directions)})" if directions[0] != directions[1] else ""
    return [f"qform and sform of its header put voxels up to {shift_mm:.1f} mm apart{turned}; the sform is used"]


def scan_warnings(brain: np.ndarray, contrasts: Iterable[np.ndarray], voxel_mm: np.ndarray) -> list[str]:
    """Warnings about thick slices, a brain cut off by the field of view, and tissue around the brain.

    brain: bool (X, Y, Z), True where any contrast is not 0; contrasts: their values; voxel_mm: sides of a voxel, (3,).
    """
    warnings = []
    if voxel_mm.max() >= THICK_MM and voxel_mm.max() >= MAX_RATIO * voxel_mm.min():
        sides = " x ".join(f"{side:.2g}" for side in voxel_mm)
        warnings.append(f"voxels of {sides} mm: slices are thick, and values between them are interpolated")
    outside = fraction_outside(brain, contrasts, voxel_mm)
    if outside > MAX_OUTSIDE:  # a head reaches the ends of the field of view, which says nothing about the brain
        warnings.append(
            f"{outside:.0%} of the bright voxels lie outside the brain: the skull may not have been removed; strip it, "
            "for instance with HD-BET or SynthStrip"
        )
    elif ends := cut_ends(brain):
        places = ", ".join(f"{end} end" for end in ends)
        ratios = ", ".join(f"{ratio:.0%}" for ratio in ends.values())
        warnings.append(
            f"the brain reaches the {places} of the field of view ({ratios} of its largest cross-section): it may be "
            "cut off"
        )
    return warnings


def same_images(brain: np.ndarray, images: Mapping[str, np.ndarray]) -> list[str]:
    """A warning for each pair of contrasts that are the same image, up to brightness."""
    places = np.flatnonzero(brain)[:: max(1, int(brain.sum()) // SAMPLED)]
    values = {name: image.ravel()[places].astype(np.float64) for name, image in images.items()}
    warnings = []
    for (one, first), (other, second) in combinations(values.items(), 2):
        if first.std() > 0 and second.std() > 0 and np.corrcoef(first, second)[0, 1] > SAME:
            warnings.append(f"{one} and {other} are the same image, or nearly: one may have been copied or misnamed")
    return warnings


def cut_ends(brain: np.ndarray) -> dict[str, float]:
    """The ends of the field of view where the brain's cross-section is large, with its ratio to the largest one."""
    ends = {}
    for axis, names in enumerate(ENDS):
        areas = brain.sum(axis=tuple(other for other in range(3) if other != axis))
        for name, area in zip(names, (areas[0], areas[-1]), strict=True):
            if area > MAX_CUT * areas.max():
                ends[name] = float(area / areas.max())
    return ends


def fraction_outside(brain: np.ndarray, contrasts: Iterable[np.ndarray], voxel_mm: np.ndarray) -> float:
    """The fraction of bright voxels that are not brain, judged by shape.

    Bright voxels are eroded by DEPTH_MM; the largest connected component that remains, dilated again, counts as brain.
    The dark skull separates scalp, face and neck from it. 0 if nothing remains.
    """
    steps = tuple(slice(None, None, max(1, int(COARSE_MM / side))) for side in voxel_mm)
    sides_mm = np.array([side * step.step for side, step in zip(voxel_mm, steps, strict=True)])
    inside = brain[steps]
    bright = np.zeros_like(inside)
    for values in contrasts:
        if inside.any():
            values = values[steps]
            dark, light = np.percentile(values[inside], (1, 98))
            dark = min(0.0, dark)  # below 0 in normalised images
            bright |= inside & (values > dark + BRIGHT * (light - dark))
    padded = np.pad(bright, 1)  # beyond the field of view there is no tissue
    components, count = label(distance_transform_edt(padded, sampling=sides_mm) > DEPTH_MM)  # pyright: ignore[reportGeneralTypeIssues,reportOperatorIssue]
    if count == 0:
        return 0.0
    largest = components == np.bincount(components.ravel())[1:].argmax() + 1
    dilated = distance_transform_edt(~largest, sampling=sides_mm) <= DEPTH_MM + COARSE_MM  # pyright: ignore[reportOperatorIssue]
    return float((padded & ~dilated).sum() / padded.sum())
