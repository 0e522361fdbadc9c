"""Phantom tumours: one component inside the brain, with the parts and the position of their class."""

import numpy as np
import pytest
from scipy.ndimage import label

from util.data.phantom.anatomy import random_anatomy
from util.data.phantom.tumour import ENHANCING, NECROSIS, OEDEMA, random_tumour

SPACING = 3.0


@pytest.fixture(scope="module")
def anatomy():
    return random_anatomy(np.random.default_rng(0), SPACING)


def tumours(anatomy, kind, count=6):
    return [random_tumour(np.random.default_rng(seed), anatomy, kind, SPACING) for seed in range(count)]


@pytest.mark.parametrize("kind", ["wildtype", "mutant", "codeleted"])
def test_one_component_inside_the_brain_of_plausible_size(anatomy, kind):
    found = tumours(anatomy, kind)
    for tumour in found:
        assert tumour.kind == kind
        assert not tumour.labels[~anatomy.brain].any()
        assert label(tumour.labels > 0)[1] == 1  # pyright: ignore[reportIndexIssue]
        millilitres = (tumour.labels > 0).sum() * SPACING**3 / 1000
        assert 4 < millilitres < 300
    assert not np.array_equal(found[0].labels, found[1].labels)


def test_wildtype_has_a_ring_around_necrosis(anatomy):
    for tumour in tumours(anatomy, "wildtype"):
        necrosis = tumour.labels == NECROSIS
        assert necrosis.any()
        assert (tumour.labels == OEDEMA).any()
        around = np.zeros_like(necrosis)
        for axis in range(3):
            for step in (-1, 1):
                around |= np.roll(necrosis, step, axis)
        shell = tumour.labels[around & ~necrosis & anatomy.brain]
        assert (shell == ENHANCING).mean() > 0.9


def test_mutant_does_not_enhance(anatomy):
    for tumour in tumours(anatomy, "mutant"):
        assert set(np.unique(tumour.labels)) == {0, NECROSIS, OEDEMA}


def test_codeleted_lies_in_frontal_cortex(anatomy):
    for tumour in tumours(anatomy, "codeleted"):
        centre_y_mm = anatomy.mni_mm[1][tumour.labels > 0].mean()
        assert centre_y_mm > 0
        assert anatomy.gm[tumour.labels > 0].mean() > 0.25
    assert tumours(anatomy, "codeleted", 1)[0].texture.std() > 3 * tumours(anatomy, "mutant", 1)[0].texture.std()


def test_markers_depend_on_their_strength(anatomy):
    """Ring, mismatch, texture: each lies between that of no class and its own, in the order of the strengths."""
    for kind, of_tumour in {
        "wildtype": lambda t: t.appearance[ENHANCING]["t1ce"] - t.appearance[NECROSIS]["t1ce"],
        "mutant": lambda t: t.appearance[NECROSIS]["t2"] - t.appearance[NECROSIS]["flair"],
        "codeleted": lambda t: t.texture.std(),
    }.items():
        full, half, none = (
            of_tumour(random_tumour(np.random.default_rng(0), anatomy, kind, SPACING, s)) for s in (1.0, 0.5, 0.0)
        )
        assert full > 1.2 * half > 1.2 * 1.2 * none >= 0


def test_ring_and_position_depend_on_the_strength_too(anatomy):
    def tumours_at(kind, strength):
        return [random_tumour(np.random.default_rng(seed), anatomy, kind, SPACING, strength) for seed in range(8)]

    ring = [np.mean([(t.labels == ENHANCING).sum() for t in tumours_at("wildtype", s)]) for s in (1.0, 0.5, 0.0)]
    assert ring[0] > 1.3 * ring[1] > ring[2] == 0
    frontal = [
        np.mean([anatomy.mni_mm[1][t.labels > 0].mean() > 0 for t in tumours_at("codeleted", s)]) for s in (1.0, 0.0)
    ]
    assert frontal[0] == 1 > frontal[1]
