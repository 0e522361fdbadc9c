"""Scores against a mask agree with counting voxels one by one, and mean what they say."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from util.inference.study import Study
from vis.map_checks.tumour_scores import (
    Places,
    Reading,
    readings,
    token_places,
    trivial_maps,
    tumour_scores,
    voxel_flair,
)

P = 4


@pytest.fixture
def study():
    generator = np.random.default_rng(0)
    volume = np.zeros((2, 8, 12, 8), np.float32)
    volume[:, 1:7, 1:11, 1:7] = generator.uniform(1, 2, (2, 6, 10, 6))
    tumour = np.zeros((8, 12, 8), np.uint8)
    tumour[0:4, 2:7, 2:7] = 3  # its lowest plane lies outside the brain
    volume[1][tumour > 0] += 5
    volume[:, 0] = 0
    return Study("S", ("t1", "flair"), volume, tumour)


def test_scores_of_tokens_agree_with_voxels(study):
    values = np.random.default_rng(1).integers(0, 6, 12).astype(float)  # with ties
    places = token_places(study, P)
    found = tumour_scores(Reading(values, 0.0), places)
    voxels = values.reshape(2, 3, 2).repeat(P, 0).repeat(P, 1).repeat(P, 2)[study.brain_ZYX]
    inside = study.segmentation_ZYX[study.brain_ZYX] > 0
    assert places.tumour.sum() == inside.sum()
    assert found["auc"] == pytest.approx(roc_auc_score(inside, voxels))
    dice = [2 * (inside & (voxels >= t)).sum() / (inside.sum() + (voxels >= t).sum()) for t in np.unique(voxels)]
    assert found["dice"] == pytest.approx(max(dice))
    assert found["mass"] == pytest.approx(voxels[inside].sum() / voxels.sum())
    assert found["pointing"] == pytest.approx(inside[voxels == voxels.max()].mean())


def test_perfect_and_inverted_maps():
    places = Places(np.array([4.0, 4, 4, 0]), np.array([4.0, 0, 0, 0]))
    assert tumour_scores(Reading(np.array([2.0, 1, 0, 99]), 1.0), places) == {
        "auc": 1, "pointing": 1, "mass": 1, "dice": 1,
    }  # fmt: skip  # what lies in air (the last place) is not seen
    worst = tumour_scores(Reading(np.array([-1.0, 1, 1, 0]), 0.0), places)
    assert worst == {"auc": 0, "pointing": 0, "mass": 0, "dice": 0.5}
    flat = tumour_scores(Reading(np.zeros(4), 0.0), places)
    assert flat == {"auc": 0.5, "pointing": pytest.approx(1 / 3), "mass": 0, "dice": 0.5}


def test_no_tumour_cannot_be_scored():
    with pytest.raises(ValueError, match="inside and outside"):
        tumour_scores(Reading(np.ones(2), 0), Places(np.ones(2), np.zeros(2)))


def test_readings_are_fixed_by_the_kind_of_map():
    values, occupied = np.array([-3.0, 1, 2, 50]), np.array([True, True, True, False])
    read = readings("gradient", values, occupied)
    assert list(read) == ["gradient", "gradient, either way"]
    np.testing.assert_array_equal(read["gradient"].values, values)
    np.testing.assert_array_equal(read["gradient, either way"].values, [4, 0, 1, 49])
    np.testing.assert_array_equal(readings("pca", values, occupied)["pca"].values, [4, 0, 1, 49])
    assert readings("max", values, occupied)["max"].zero == -3
    assert readings("mean", values, occupied)["mean"].zero == 0


def test_trivial_maps_are_flair_and_centre(study):
    found = trivial_maps(study, P)
    assert list(found) == ["flair", "centre"]
    occupied = token_places(study, P).occupied
    assert tumour_scores(Reading(found["flair"], 0), token_places(study, P))["auc"] > 0.7
    near = found["centre"].reshape(2, 3, 2)
    assert near[:, 1].min() > near[:, [0, 2]].max()
    assert occupied.all()
    assert list(trivial_maps(Study("S", ("t2",), study.volume_CZYX[:1]), P)) == ["t2", "centre"]


def test_voxel_flair_sees_the_tumour_exactly(study):
    reading, places = voxel_flair(study)
    assert tumour_scores(reading, places)["auc"] == pytest.approx(1)
    assert token_places(Study("S", study.contrasts, study.volume_CZYX), P).tumour.sum() == 0
