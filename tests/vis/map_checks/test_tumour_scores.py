"""Tumour scores on patches agree with scores computed voxel by voxel."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from util.inference.study import Study
from vis.map_checks.tumour_scores import (
    Variant,
    VoxelCounts,
    map_variants,
    patch_counts,
    trivial_maps,
    tumour_scores,
    voxel_intensity,
)

P = 4


@pytest.fixture
def study():
    generator = np.random.default_rng(0)
    volume = np.zeros((2, 8, 12, 8), np.float32)
    volume[:, 1:7, 1:11, 1:7] = generator.uniform(1, 2, (2, 6, 10, 6))
    tumour = np.zeros((8, 12, 8), np.uint8)
    tumour[0:4, 2:7, 2:7] = 3  # its lowest plane is outside the brain
    volume[1][tumour > 0] += 5
    volume[:, 0] = 0
    return Study("S", ("t1", "flair"), volume, tumour)


def test_scores_of_tokens_agree_with_voxels(study):
    values = np.random.default_rng(1).integers(0, 6, 12).astype(float)  # with ties
    counts = patch_counts(study, P)
    found = tumour_scores(Variant(values, 0.0), counts)
    voxels = values.reshape(2, 3, 2).repeat(P, 0).repeat(P, 1).repeat(P, 2)[study.brain_ZYX]
    inside = study.segmentation_ZYX[study.brain_ZYX] > 0
    assert counts.tumour.sum() == inside.sum()
    assert found["auc"] == pytest.approx(roc_auc_score(inside, voxels))
    dice = [2 * (inside & (voxels >= t)).sum() / (inside.sum() + (voxels >= t).sum()) for t in np.unique(voxels)]
    assert found["dice"] == pytest.approx(max(dice))
    assert found["mass"] == pytest.approx(voxels[inside].sum() / voxels.sum())
    assert found["pointing"] == pytest.approx(inside[voxels == voxels.max()].mean())


def test_perfect_and_inverted_maps():
    counts = VoxelCounts(np.array([4.0, 4, 4, 0]), np.array([4.0, 0, 0, 0]))
    assert tumour_scores(Variant(np.array([2.0, 1, 0, 99]), 1.0), counts) == {
        "auc": 1, "pointing": 1, "mass": 1, "dice": 1,
    }  # fmt: skip  # the last patch is air and does not count
    worst = tumour_scores(Variant(np.array([-1.0, 1, 1, 0]), 0.0), counts)
    assert worst == {"auc": 0, "pointing": 0, "mass": 0, "dice": 0.5}
    flat = tumour_scores(Variant(np.zeros(4), 0.0), counts)
    assert flat == {"auc": 0.5, "pointing": pytest.approx(1 / 3), "mass": 0, "dice": 0.5}


def test_no_tumour_cannot_be_scored():
    with pytest.raises(ValueError, match="inside and outside"):
        tumour_scores(Variant(np.ones(2), 0), VoxelCounts(np.ones(2), np.zeros(2)))


def test_variants_depend_on_the_kind_of_map():
    values, has_brain = np.array([-3.0, 1, 2, 50]), np.array([True, True, True, False])
    read = map_variants("gradient", values, has_brain)
    assert list(read) == ["gradient", "gradient, absolute"]
    np.testing.assert_array_equal(read["gradient"].values, values)
    np.testing.assert_array_equal(read["gradient, absolute"].values, [4, 0, 1, 49])
    np.testing.assert_array_equal(map_variants("pca", values, has_brain)["pca"].values, [4, 0, 1, 49])
    assert map_variants("max", values, has_brain)["max"].zero == -3
    assert map_variants("mean", values, has_brain)["mean"].zero == 0


def test_trivial_maps_are_flair_and_centre(study):
    found = trivial_maps(study, P)
    assert list(found) == ["flair", "centre"]
    has_brain = patch_counts(study, P).has_brain
    assert tumour_scores(Variant(found["flair"], 0), patch_counts(study, P))["auc"] > 0.7
    near = found["centre"].reshape(2, 3, 2)
    assert near[:, 1].min() > near[:, [0, 2]].max()
    assert has_brain.all()
    assert list(trivial_maps(Study("S", ("t2",), study.volume_CZYX[:1]), P)) == ["t2", "centre"]


def test_intensity_per_voxel_separates_the_tumour_exactly(study):
    variant, counts = voxel_intensity(study)
    assert tumour_scores(variant, counts)["auc"] == pytest.approx(1)
    assert patch_counts(Study("S", study.contrasts, study.volume_CZYX), P).tumour.sum() == 0
