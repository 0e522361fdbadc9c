"""All checks of one subject."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import tiny_classifier, write_finetune_run, write_prepared
from util.inference.open_run import open_run
from util.protocol.decision import Decision
from vis.map_checks.subject import ComparisonModels, score_subject
from vis.map_checks.tumour_scores import map_variants, patch_counts, tumour_scores
from vis.maps.registry import MapOptions, compute_maps

NAMES = ("max", "pca", "gradient")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    root = tmp_path_factory.mktemp("truth")
    subjects = ["A", "B", "C", "D"]
    return open_run(write_finetune_run(root / "run", write_prepared(root / "data", subjects), subjects),
                    "finetune", fold=0, device="cpu")  # fmt: skip


def scored(opened, **asked):
    found = score_subject(
        opened, opened.study("A"), NAMES, MapOptions(), fold=0, label=1, others=ComparisonModels(**asked)
    )
    return found, {row.method: row for row in found.rows}


def test_rows_are_maps_and_trivial_maps(opened):
    found, rows = scored(opened)
    assert list(rows) == ["random", "flair", "centre", "max", "pca", "gradient", "gradient, absolute",
                          "flair, per voxel"]  # fmt: skip
    assert found.similarities == []
    assert all(math.isnan(row.random_auc) and math.isnan(row.shuffled_auc) for row in rows.values())
    assert rows["flair, per voxel"].auc == pytest.approx(1)  # the tumour is the brightest region
    assert all(0 <= row.deletion <= 1 for name, row in rows.items() if "per voxel" not in name)


def test_map_explains_the_predicted_class(opened):
    found, rows = scored(opened)
    study = opened.study("A")
    with torch.no_grad():
        assert found.target == opened.model(opened.batch(study)).argmax().item()
    for threshold, target in ((0.0, 1), (1.0, 0)):  # not the argmax if the run has another threshold
        with_threshold = dataclasses.replace(opened, decision=Decision(threshold=threshold))
        assert scored(with_threshold)[0].target == target
    counts = patch_counts(study, 8)
    target = MapOptions(target=found.target)
    values = (
        compute_maps(opened.model, opened.batch(study), ["gradient"], target)["gradient"].values_Bzyx.flatten().numpy()
    )
    variant = map_variants("gradient", values.astype(float), counts.has_brain)["gradient"]
    assert rows["gradient"].auc == pytest.approx(tumour_scores(variant, counts)["auc"])


def test_randomised_and_shuffled_models_are_scored_too(opened):
    found, rows = scored(opened, shuffled=tiny_classifier(), randomise=True)
    for name in ("max", "pca", "gradient", "gradient, absolute"):
        assert 0 <= rows[name].random_auc <= 1
        assert -1 <= rows[name].random_similarity <= 1
        assert 0 <= rows[name].shuffled_auc <= 1
    assert math.isnan(rows["flair"].random_auc)
    head = {s["method"]: s["similarity"] for s in found.similarities if s["stage"] == "head"}
    assert head["max"] == pytest.approx(1)  # a latent map does not depend on the head
    assert abs(head["gradient"]) < 1
    same = scored(opened, shuffled=opened.model)[1]["max"]
    assert same.shuffled_auc == same.auc


def test_reproducibility_is_the_mean_rank_correlation_with_other_maps(opened):
    other = tiny_classifier()
    torch.nn.init.normal_(other.norm_f.weight)
    alone = scored(opened, folds=[opened.model])[1]
    one, two = (scored(opened, folds=[opened.model] * n, seeds=[other])[1] for n in (0, 1))
    mixed = scored(opened, folds=[opened.model, other])[1]
    for name in ("max", "pca", "gradient", "gradient, absolute"):
        assert alone[name].fold_similarity == pytest.approx(1)
        assert math.isnan(alone[name].seed_similarity)
        assert math.isnan(one[name].fold_similarity)
        assert one[name].seed_similarity == two[name].seed_similarity < 0.999
        assert mixed[name].fold_similarity == pytest.approx((1 + one[name].seed_similarity) / 2)
    assert math.isnan(mixed["flair"].fold_similarity)


def test_a_subject_without_mask_has_deletion_and_insertion_only(opened, monkeypatch):
    monkeypatch.setattr(opened.data, "segmentation", lambda subject: None)
    _, rows = scored(opened, randomise=True)
    assert all(math.isnan(row.auc) and math.isnan(row.random_auc) for row in rows.values())
    assert not math.isnan(rows["max"].deletion)


def test_random_row_is_the_same_in_every_run(opened):
    assert scored(opened)[1]["random"] == scored(opened)[1]["random"]
    assert np.isfinite(scored(opened)[1]["random"].auc)
