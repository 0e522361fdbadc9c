"""A subject for drawing: background is black, the focus lies in the tumour."""

import numpy as np
import pytest

from util.inference.study import HIGH, LOW, Study


def study(volume, **fields):
    return Study("S", ("t1",), volume, **fields)


@pytest.mark.parametrize("background", [0.0, -0.7])  # after a z-score per contrast, and after the joint one
def test_air_is_black_whatever_its_value(background):
    volume = np.full((1, 6, 6, 6), background, np.float32)
    volume[0, 2:4, 2:4, 2:4] = np.linspace(-1.5, 1.5, 8).reshape(2, 2, 2)
    subject = study(volume)
    assert subject.brain_ZYX.sum() == 8
    grey = subject.grey(volume)
    assert (grey[0][~subject.brain_ZYX] == 0).all()
    assert grey.min() == 0
    assert grey.max() == 1


def test_reconstruction_is_shown_in_the_window_of_the_input():
    volume = np.zeros((1, 6, 6, 6), np.float32)
    volume[0, 2:4, 2:4, 2:4] = np.linspace(1, 2, 8).reshape(2, 2, 2)
    low, high = np.percentile(np.linspace(1, 2, 8), [LOW, HIGH])
    grey = study(volume).grey(volume * 0 + 1.5)
    np.testing.assert_allclose(grey[0, 2:4, 2:4, 2:4], (1.5 - low) / (high - low), atol=1e-5)


def test_constant_volume_is_drawn():
    assert np.isfinite(study(np.ones((1, 4, 4, 4), np.float32)).grey(np.ones((1, 4, 4, 4)))).all()


def test_focus_is_in_the_tumour_else_amid_the_brain():
    volume = np.zeros((1, 10, 10, 10), np.float32)
    volume[0, 2:8, 4:8, 1:8] = 1
    assert study(volume).focus == (4, 5, 4)
    ring = np.zeros((10, 10, 10), np.uint8)
    ring[5, 2:7, 2:7] = 1
    ring[5, 3:6, 3:6] = 0  # its centre of mass is not tumour
    z, y, x = study(volume, segmentation_ZYX=ring).focus
    assert ring[z, y, x] == 1
    assert study(volume, segmentation_ZYX=ring * 0).focus == (4, 5, 4)
