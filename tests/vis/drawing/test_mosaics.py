"""Mosaics show slices of the brain in order with one colour scale; class means share a scale."""

import numpy as np
import pytest

from tests.helpers.vis_cases import texts
from util.data.folder import CONTRASTS
from util.inference.study import Study
from vis.drawing.figures import REMOVED_COLOUR
from vis.drawing.mosaics import background, class_means_figure, mosaic_figure, ratio_figure
from vis.drawing.planes import cut
from vis.drawing.style import NOTICE, png_bytes


@pytest.fixture
def study():
    volume = np.zeros((4, 40, 16, 16), np.float32)
    volume[:, 6:36, 3:13, 2:14] = np.random.default_rng(0).normal(size=(4, 30, 10, 12))
    tumour = np.zeros((40, 16, 16), np.uint8)
    tumour[20:30, 6:9, 6:9] = 1
    return Study("S", CONTRASTS, volume, tumour)


def test_slices_go_up_through_the_brain_with_one_colour_scale(study):
    values = np.random.default_rng(1).normal(size=(40, 16, 16))
    figure = mosaic_figure(study, values, "pca", subtitle="how", rows=3)
    panels = figure.axes[:18]
    slices = [int(panel.texts[0].get_text().removeprefix("z ")) for panel in panels]
    assert slices == sorted(set(slices))
    assert slices[0] > 6
    assert slices[-1] < 35
    limits = {panel.get_images()[1].get_clim() for panel in panels}
    assert len(limits) == 1
    for panel, index in zip(panels, slices, strict=True):
        shown = panel.get_images()[1].get_array()
        np.testing.assert_array_equal(np.ma.getmaskarray(shown), cut(~study.brain_ZYX, 0, index))
        np.testing.assert_array_equal(np.ma.getdata(shown), cut(values, 0, index))
        assert bool(panel.collections) == bool(study.segmentation_ZYX[index].any())
    assert "how · background FLAIR" in texts(figure)
    assert any(NOTICE in text for text in texts(figure))
    assert png_bytes(figure)


def test_background_contrast_of_a_map():
    assert background(CONTRASTS) == "flair"
    assert background(("t1", "t1ce")) == "t1ce"
    assert background(("t1",)) == "t1"


def test_class_means_share_a_scale(study):
    low, high = np.zeros((40, 16, 16)), np.full((40, 16, 16), 5.0)
    figure = class_means_figure(
        {"wild type (n = 3)": (study, low), "mutant (n = 2)": (study, high)}, "max", subtitle=""
    )
    assert {"wild type (n = 3)", "mutant (n = 2)", "Axial"} <= set(texts(figure))
    limits = {panel.get_images()[1].get_clim() for panel in figure.axes[:6]}
    assert limits == {(0.0, 5.0)}
    assert png_bytes(figure)


def test_a_row_per_mask_ratio_shows_the_visible_patches_and_the_reconstruction(study):
    generator = np.random.default_rng(2)
    reconstructions = {}
    for ratio in (0.9, 0.5):  # sorted in the figure
        removed = generator.random((40, 16, 16)) < ratio
        reconstructions[ratio] = (np.where(removed, 0.5, study.volume_CZYX), removed, ratio / 10)
    figure = ratio_figure(study, reconstructions, subtitle="how")
    assert len(figure.axes) == 3 * 8
    rows = [figure.axes[start : start + 8] for start in (0, 8, 16)]
    assert [line[0].get_ylabel() for line in rows] == ["input", "50% removed\nloss 0.050", "90% removed\nloss 0.090"]
    plane = study.focus[0]
    for line, ratio in zip(rows[1:], (0.5, 0.9), strict=True):
        pasted, removed, _ = reconstructions[ratio]
        gone = cut(removed, 0, plane)
        for contrast in range(4):
            masked, shown = (line[2 * contrast + at].get_images()[0].get_array() for at in (0, 1))
            np.testing.assert_allclose(masked[gone], np.broadcast_to(REMOVED_COLOUR, (gone.sum(), 3)))
            np.testing.assert_array_equal(
                masked[~gone][:, 0], cut(study.grey(study.volume_CZYX)[contrast], 0, plane)[~gone]
            )
            np.testing.assert_array_equal(shown, cut(study.grey(pasted)[contrast], 0, plane))
    assert any(NOTICE in text for text in texts(figure))
