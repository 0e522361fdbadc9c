"""Phantom contrasts: fluid is dark on t1 and flair and bright on t2; tumours have the appearance of their class."""

import numpy as np
import pytest

from util.data.folder import CONTRASTS
from util.data.phantom.anatomy import random_anatomy
from util.data.phantom.signal import render_contrasts
from util.data.phantom.study import make_phantom
from util.data.phantom.tumour import ENHANCING, NECROSIS, OEDEMA, random_tumour

SPACING = 3.0


@pytest.fixture(scope="module")
def healthy():
    """Anatomy, its images, and where there is no tumour."""
    generator = np.random.default_rng(0)
    anatomy = random_anatomy(generator, SPACING)
    tumour = random_tumour(generator, anatomy, "mutant", SPACING)
    return anatomy, render_contrasts(generator, anatomy, tumour, SPACING), tumour.labels == 0


def test_contrasts_are_those_of_mri(healthy):
    anatomy, images, free = healthy
    assert tuple(images) == CONTRASTS
    level = {
        contrast: [np.median(image[(fraction > 0.8) & free]) for fraction in (anatomy.csf, anatomy.gm, anatomy.wm)]
        for contrast, image in images.items()
    }
    for contrast in ("t1", "t1ce"):
        csf, gm, wm = level[contrast]
        assert csf < 0.8 * gm < gm < 0.95 * wm
    csf, gm, wm = level["t2"]
    assert csf > 1.2 * gm > 1.2 * 1.1 * wm
    csf, gm, wm = level["flair"]
    assert csf < 0.6 * wm < wm < gm


def test_background_is_zero_and_brain_is_not(healthy):
    anatomy, images, _ = healthy
    for image in images.values():
        assert image.dtype == np.int16
        assert (image[~anatomy.brain] == 0).all()
        assert (image[anatomy.brain] > 0).all()


def relative(phantom, contrast, label):
    """Median of a tumour part over the median of the rest of the brain."""
    image = phantom.images[contrast]
    return np.median(image[phantom.seg == label]) / np.median(image[(image > 0) & (phantom.seg == 0)])


def test_wildtype_ring_is_bright_on_t1ce_only():
    phantom = make_phantom("egd", 0, seed=0, spacing=SPACING)
    assert phantom.kind == "wildtype"
    assert relative(phantom, "t1ce", ENHANCING) > 1.4
    assert relative(phantom, "t1", ENHANCING) < 1
    assert relative(phantom, "t1ce", NECROSIS) < 0.8
    assert relative(phantom, "flair", OEDEMA) > 1.4


def test_mutant_shows_the_t2_flair_mismatch_and_no_enhancement():
    phantom = make_phantom("egd", 1, seed=0, spacing=SPACING)
    assert phantom.kind == "mutant"
    assert relative(phantom, "t2", NECROSIS) > 1.5
    assert relative(phantom, "flair", NECROSIS) < 0.9
    assert relative(phantom, "flair", OEDEMA) > 1.4
    assert relative(phantom, "t1ce", NECROSIS) < 1


def test_codeleted_is_bright_on_flair_without_mismatch():
    phantom = make_phantom("egd", 3, seed=0, spacing=SPACING)
    assert phantom.kind == "codeleted"
    assert relative(phantom, "t2", NECROSIS) > 1.2
    assert relative(phantom, "flair", NECROSIS) > 1.2


def test_healthy_tissue_looks_alike_in_every_class_once_windowed():
    """Rings brighter than all else would widen the window, and darken the rest, of wild types alone."""
    levels = {True: [], False: []}
    for index in (0, 1, 2, 3, 4, 5, 6, 7):
        phantom = make_phantom("egd", index, seed=1, spacing=SPACING)
        brain = phantom.images["t1ce"][phantom.images["t1ce"] > 0]
        low, median, high = np.percentile(brain, (0.5, 50, 99.5))
        levels[phantom.kind == "wildtype"].append((median - low) / (high - low))
    assert max(levels[True]) > min(levels[False])
    assert max(levels[False]) > min(levels[True])
