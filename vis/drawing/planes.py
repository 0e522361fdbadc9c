"""Planes of a volume as a reader of brain scans expects them: orientation, letters of the sides."""

import numpy as np

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}  # the array axis that a plane fixes; arrays are (Z, Y, X) in RAS+
LEFT_LETTER = {"axial": "R", "coronal": "R", "sagittal": "A"}  # radiological: the patient's right at the reader's left
REMOVED_TONE = 0.22  # grey of a removed patch: neither air nor tissue


def cut(volume_ZYX: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A plane as an image whose first row is superior (or anterior) and first column the patient's right (or anterior).

    Array indices grow towards superior, anterior and right, so each plane is turned by 180 degrees.
    """
    return np.take(volume_ZYX, index, axis=axis)[::-1, ::-1]
