"""The contents of the panels of a subject's figures."""

import numpy as np
import pytest

from tests.helpers.vis_cases import texts
from util.data.folder import CONTRASTS
from util.inference.study import Study
from vis.drawing.figures import REMOVED_COLOUR, map_figure, peak, reconstruction_figure
from vis.drawing.planes import cut
from vis.drawing.style import NOTICE, png_bytes
from vis.maps.latent import MAPS


@pytest.fixture
def study():
    generator = np.random.default_rng(0)
    volume = np.zeros((4, 16, 16, 16), np.float32)
    volume[:, 2:14, 3:13, 2:14] = generator.normal(size=(4, 12, 10, 12))
    tumour = np.zeros((16, 16, 16), np.uint8)
    tumour[6:9, 6:9, 6:9] = 1
    return Study("S<1>", CONTRASTS, volume, tumour)


@pytest.fixture
def removed():
    removed = np.zeros((16, 16, 16), bool)
    removed[:, :8] = True
    return removed


def images(axis):
    return [np.ma.getdata(image.get_array()) for image in axis.get_images()]


def test_reconstruction_panels(study, removed):
    prediction = study.volume_CZYX + 1
    figure = reconstruction_figure(study, prediction, removed, subtitle="loss 1", planes=("axial",))
    panels = figure.axes[:20]  # 4 contrasts x input, masked, output, reconstruction, error
    gone = cut(removed, 0, study.focus[0])
    for contrast in range(4):
        seen, masked, output, pasted, error = (images(axis)[0] for axis in panels[5 * contrast : 5 * contrast + 5])
        np.testing.assert_array_equal(masked[gone], np.broadcast_to(REMOVED_COLOUR, masked[gone].shape))
        np.testing.assert_array_equal(masked[~gone][:, 0], seen[~gone])
        np.testing.assert_array_equal(pasted[~gone], seen[~gone])
        np.testing.assert_array_equal(pasted[gone], output[gone])
        assert (error[~gone] == 0).all()
        np.testing.assert_allclose(error[gone], 1, atol=1e-5)


def test_three_planes_by_default(study, removed):
    figure = reconstruction_figure(study, study.volume_CZYX * 0.5, removed, subtitle="loss 1")
    assert {"Axial", "Coronal", "Sagittal", "S<1>", "loss 1", "T1", "T2", "T1ce", "FLAIR"} <= set(texts(figure))
    assert len(figure.axes) == 4 * 12 + 1
    assert png_bytes(figure)


@pytest.mark.parametrize("name", MAPS)
def test_map_lies_over_the_brain_only_and_is_shown_alone(study, name):
    values = np.random.default_rng(1).normal(size=(16, 16, 16))
    figure = map_figure(study, values, name, subtitle="how")
    line = figure.axes[:5]
    overlay = line[2].get_images()[1].get_array()
    brain = cut(study.brain_ZYX, 0, study.focus[0])
    np.testing.assert_array_equal(np.ma.getmaskarray(overlay), ~brain)
    np.testing.assert_array_equal(images(line[4])[0], cut(values, 0, study.focus[0]))
    assert any(MAPS[name].title in text for text in texts(figure))
    low, high = line[4].get_images()[0].get_clim()
    assert (low == -high) == MAPS[name].signed
    assert png_bytes(figure)


def test_the_colour_scale_covers_the_brain_only(study):
    values = np.where(study.brain_ZYX, np.linspace(0, 1, 16**3).reshape(16, 16, 16), 1000.0)
    low, high = map_figure(study, values, "max", subtitle="").axes[4].get_images()[0].get_clim()
    assert 0 <= low < high <= 1


def test_constant_map_is_drawn(study):
    assert png_bytes(map_figure(study, np.zeros((16, 16, 16)), "max", subtitle=""))
    assert png_bytes(map_figure(study, np.zeros((16, 16, 16)), "pca", subtitle=""))


def test_a_map_can_use_another_background_contrast(study):
    alone = Study("S", ("t1",), study.volume_CZYX[:1])
    assert "T1 + map" in texts(map_figure(alone, np.zeros((16, 16, 16)), "max", subtitle=""))


@pytest.mark.parametrize("oriented", [True, False])
def test_sides_are_marked_only_if_the_orientation_is_known(study, removed, oriented):
    known = Study("S", CONTRASTS, study.volume_CZYX, oriented=oriented)
    for figure in (
        map_figure(known, study.volume_CZYX[0], "max", subtitle=""),
        reconstruction_figure(known, study.volume_CZYX, removed, subtitle=""),
    ):
        assert ("R" in texts(figure)) == oriented
        assert any("right of the patient" in text for text in texts(figure)) == oriented


@pytest.mark.parametrize("phantom", [True, False])
def test_every_figure_states_the_intended_use_and_simulated_data(study, removed, phantom):
    marked = Study("S", CONTRASTS, study.volume_CZYX, phantom=phantom)
    for figure in (
        map_figure(marked, study.volume_CZYX[0], "max", subtitle=""),
        reconstruction_figure(marked, study.volume_CZYX, removed, subtitle=""),
    ):
        notice = next(text for text in texts(figure) if NOTICE in text)
        assert ("Simulated phantom, not a patient" in notice) == phantom


def test_tumour_outline_is_drawn_and_explained_where_there_is_one(study):
    def outlines(subject):
        figure = map_figure(subject, study.volume_CZYX[0], "max", subtitle="")
        return sum(len(axis.collections) for axis in figure.axes[:15]), any("outline" in text for text in texts(figure))

    assert outlines(study) == (15, True)
    assert outlines(Study("S", CONTRASTS, study.volume_CZYX)) == (0, False)


def test_planes_go_through_the_given_centres(study):
    values = np.random.default_rng(1).normal(size=(16, 16, 16))
    figure = map_figure(study, values, "occlusion", subtitle="", centres={"here": study.focus, "there": (3, 4, 5)})
    assert {"Axial\nhere", "Coronal\nhere", "Sagittal\nthere"} <= set(texts(figure))
    for row, (axis, index) in zip((3, 4, 5), ((0, 3), (1, 4), (2, 5)), strict=True):
        np.testing.assert_array_equal(images(figure.axes[5 * row + 4])[0], cut(values, axis, index))
    assert any("drop when occluded\n(log-odds of the class)" in text for text in texts(figure))


def test_the_peak_is_inside_the_brain_and_at_the_centre_of_a_patch(study):
    values = np.zeros((16, 16, 16))
    values[0, 0, 0] = 99  # air
    values[4:8, 4:8, 4:8] = 2
    values[10, 5, 5] = -3
    z, y, x = peak(study, values, signed=False)
    assert {z, y, x} <= {5, 6}
    assert peak(study, values, signed=True) == (10, 5, 5)
