"""The quality-control picture shows every contrast, the tumour, and the patient's left on the right."""

from io import BytesIO

import numpy as np
from matplotlib.image import imread

from util.data.folder import CONTRASTS
from util.data.prepare.quality_control import qc_picture


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
