"""Planes are cut and turned as radiologists expect."""

import numpy as np

from vis.drawing.planes import PLANES, cut


def test_planes_are_radiological():
    volume = np.zeros((4, 5, 6))
    volume[3, 4, 5] = 1  # the most superior, anterior, right voxel
    for axis, index in ((0, 3), (1, 4), (2, 5)):
        image = cut(volume, axis, index)
        assert image[0, 0] == 1
        assert image.sum() == 1
    assert cut(volume, PLANES["axial"], 3).shape == (5, 6)
    assert cut(volume, PLANES["coronal"], 4).shape == (4, 6)
    assert cut(volume, PLANES["sagittal"], 5).shape == (4, 5)
