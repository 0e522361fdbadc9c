"""The quality-control picture shows every contrast, the tumour, and the patient's left on the right."""

from io import BytesIO

import numpy as np
from matplotlib.image import imread

from util.data.folder import CONTRASTS
from util.data.prepare.quality_control import LETTERS, _slice, qc_picture


def picture(volumes, segmentation=None, subject="A"):
    return imread(BytesIO(qc_picture(subject, volumes, segmentation)))[..., :3]


def make_volumes():
    volume = np.zeros((16, 16, 16), np.uint8)
    volume[3:13, 2:14, 3:13] = 120
    return {contrast: volume.copy() for contrast in CONTRASTS}


def test_tumour_outline_is_drawn_in_colour():
    segmentation = np.zeros((16, 16, 16), np.uint8)
    segmentation[6:9, 6:9, 6:9] = 4
    plain, outlined = picture(make_volumes()), picture(make_volumes(), segmentation)
    assert np.ptp(plain, axis=2).max() < 0.02  # greys only
    assert np.ptp(outlined, axis=2).max() > 0.5
    assert picture(make_volumes(), segmentation * 0).shape == plain.shape  # an empty segmentation is no error


def test_slices_go_through_the_tumour():
    volumes = make_volumes()
    segmentation = np.zeros((16, 16, 16), np.uint8)
    segmentation[11, 4, 4] = 1
    for volume in volumes.values():
        volume[11, 4, 4] = 255
    assert (picture(volumes, segmentation)[80:] == 1).all(2).sum() > 4 * 3 * 10


def test_name_with_dollars_is_no_formula():
    assert picture(make_volumes(), subject=r"A$\nonsense{$").shape == picture(make_volumes()).shape


def test_patients_left_is_on_the_right():
    volumes = make_volumes()
    for volume in volumes.values():
        volume[:, :, :8] = np.minimum(volume[:, :, :8], 30)  # X grows to the patient's right: left is dark
    image = picture({"t1": volumes["t1"]}).mean(2)
    panel = image[image.shape[0] // 8 : image.shape[0] // 3]
    bright = np.argwhere((panel > 0.4) & (panel < 0.55))[:, 1].mean()
    dark = np.argwhere((panel > 0.08) & (panel < 0.16))[:, 1].mean()
    assert bright < dark


def test_name_and_long_notes_stay_inside_the_picture():
    """Nothing is drawn on the outermost columns, and each note makes the picture taller instead of wider."""
    notes = ["the skull may not have been removed; strip it, for instance with HD-BET or SynthStrip " * 2] * 4
    for subject in ("A", "a_very_long_name" * 12):
        image = imread(BytesIO(qc_picture(subject, make_volumes(), None, notes)))[..., :3]
        plain = picture(make_volumes(), subject=subject)
        assert image.shape[1] == plain.shape[1]
        assert image.shape[0] > plain.shape[0] + 4 * 2 * 10
        header = image[: image.shape[0] - plain.shape[0] + 10]
        assert header.any()
        assert not header[:, :2].any()
        assert not header[:, -2:].any()


def test_directions_are_lettered(monkeypatch):
    with_letters = picture(make_volumes())
    monkeypatch.setattr("util.data.prepare.quality_control.LETTERS", ("    ",) * 3)
    assert ((picture(make_volumes()) != with_letters).any(2)).sum() > 12 * 4 * 5
    assert [LETTERS[axis][:2] for axis in range(3)] == ["RL", "RL", "AP"]  # as _slice turns the planes
    volume = np.zeros((4, 4, 4), np.uint8)
    volume[3, 3, 3] = 9  # superior, anterior, right
    for axis, letters in enumerate(LETTERS):
        row, column = np.argwhere(_slice(volume, axis, 3))[0]
        assert (letters[0] in "RA") == (column == 0)
        assert (letters[2] in "AS") == (row == 0)
