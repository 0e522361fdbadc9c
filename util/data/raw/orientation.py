"""The orientation of files whose header has none, which the user may assume."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from util.data.raw.nifti_file import has_orientation

ENDS = ("LR", "PA", "IS")
POSITIVE = "RAS"
ASSUMED = "the header has no orientation, assumed is "


def orientation_code(text: str) -> str:
    """A code such as LPS, as a check of an option: one letter of L/R, P/A and I/S each, in the order of the axes."""
    code = text.upper()
    if len(code) != 3 or any(sum(letter in ends for letter in code) != 1 for ends in ENDS):
        raise argparse.ArgumentTypeError(
            f'"{text[:40]}" is not an orientation; give the direction of each axis, such as LPS or RAS'
        )
    return code


def oriented_affine(image: Any, path: Path, assumed: str | None) -> tuple[np.ndarray, list[str]]:
    """(4, 4) float64 from voxels to world mm, and a warning if it is assumed. Raises ValueError without orientation."""
    if has_orientation(image):
        return np.asarray(image.affine, dtype=np.float64), []
    if assumed is None:
        raise ValueError(
            f"{path} has no orientation in its header (qform and sform codes 0, or a format without one): left and "
            "right, front and back are unknown. Convert it again from the original scan, copy the header of a file "
            "on the same grid, or give --assume_orientation with the directions of its axes, such as LPS"
        )
    sides_mm = np.abs(np.asarray(image.header.get_zooms()[:3], dtype=np.float64))
    return assumed_affine(assumed, image.shape, sides_mm), [f"{ASSUMED}{assumed}"]


def assumed_affine(code: str, shape: tuple[int, ...], sides_mm: np.ndarray) -> np.ndarray:
    """(4, 4) of a volume whose axes point towards the letters of `code`, with its centre at 0."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, letter in enumerate(code):
        towards = next(row for row, ends in enumerate(ENDS) if letter in ends)
        affine[towards, axis] = sides_mm[axis] * (1 if letter in POSITIVE else -1)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape[:3]) - 1) / 2)
    return affine
