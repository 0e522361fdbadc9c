"""Anatomical planes in radiological orientation, with the letters of their sides."""

import numpy as np

# The array axis that is constant in a plane. Arrays are (Z, Y, X) in RAS+.
PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
LEFT_LETTER = {"axial": "R", "coronal": "R", "sagittal": "A"}  # side of the patient at the left edge of the image
REMOVED_TONE = 0.22  # grey level of a removed patch, between air and tissue


def cut(volume_ZYX: np.ndarray, axis: int, index: int) -> np.ndarray:
    """The plane at `index` of `axis` as an image.

    The first row is superior (axial planes: anterior). The first column is the right of the patient (sagittal planes:
    anterior). Array indices increase towards superior, anterior and right, so the plane is rotated by 180 degrees.
    """
    return np.take(volume_ZYX, index, axis=axis)[::-1, ::-1]
