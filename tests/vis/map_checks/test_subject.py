"""All scores of one subject: who is asked, and which checks are made."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import tiny_classifier, write_finetune_run, write_prepared
from util.inference.open_run import open_run
from util.protocol.decision import Decision
from vis.map_checks.subject import Check, Others, score_subject
from vis.map_checks.tumour_scores import readings, token_places, tumour_scores
from vis.maps.registry import MapOptions, compute_maps

CHECK = Check(("max", "pca", "gradient"), MapOptions())


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    root = tmp_path_factory.mktemp("truth")
    subjects = ["A", "B", "C", "D"]
    return open_run(write_finetune_run(root / "run", write_prepared(root / "data", subjects), subjects),
                    "finetune", fold=0, device="cpu")  # fmt: skip


def scored(session, **asked):
    found = score_subject(session, session.study("A"), CHECK, fold=0, label=1, others=Others(**asked))
    return found, {row.method: row for row in found.rows}


def test_rows_are_maps_and_trivial_maps(session):
    found, rows = scored(session)
    assert list(rows) == ["random", "flair", "centre", "max", "pca", "gradient", "gradient, either way",
                          "flair, voxel by voxel"]  # fmt: skip
    assert found.similarities == []
    assert all(math.isnan(row.random_auc) and math.isnan(row.shuffled_auc) for row in rows.values())
    assert rows["flair, voxel by voxel"].auc == pytest.approx(1)  # the tumour is the brightest there is
    assert all(0 <= row.deletion <= 1 for name, row in rows.items() if "voxel" not in name)


def test_map_explains_the_predicted_class(session):
    found, rows = scored(session)
    study = session.study("A")
    with torch.no_grad():
        assert found.target == session.model(session.batch(study)).argmax().item()
    for threshold, target in ((0.0, 1), (1.0, 0)):  # not the argmax where the run calls by another threshold
        calling = dataclasses.replace(session, decision=Decision(threshold=threshold))
        assert scored(calling)[0].target == target
    places = token_places(study, 8)
    target = MapOptions(target=found.target)
    values = (
        compute_maps(session.model, session.batch(study), ["gradient"], target)["gradient"]
        .values_Bzyx.flatten()
        .numpy()
    )
    reading = readings("gradient", values.astype(float), places.occupied)["gradient"]
    assert rows["gradient"].auc == pytest.approx(tumour_scores(reading, places)["auc"])


def test_randomised_and_shuffled_models_are_scored_too(session):
    found, rows = scored(session, shuffled=tiny_classifier(), randomise=True)
    for name in ("max", "pca", "gradient", "gradient, either way"):
        assert 0 <= rows[name].random_auc <= 1
        assert -1 <= rows[name].random_similarity <= 1
        assert 0 <= rows[name].shuffled_auc <= 1
    assert math.isnan(rows["flair"].random_auc)
    head = {s["method"]: s["similarity"] for s in found.similarities if s["stage"] == "head"}
    assert head["max"] == pytest.approx(1)  # a map of tokens does not know the head
    assert abs(head["gradient"]) < 1
    same = scored(session, shuffled=session.model)[1]["max"]
    assert same.shuffled_auc == same.auc


def test_stability_is_the_mean_likeness_to_the_maps_of_others(session):
    other = tiny_classifier()
    torch.nn.init.normal_(other.norm_f.weight)
    alone = scored(session, folds=[session.model])[1]
    one, two = (scored(session, folds=[session.model] * n, seeds=[other])[1] for n in (0, 1))
    mixed = scored(session, folds=[session.model, other])[1]
    for name in ("max", "pca", "gradient", "gradient, either way"):
        assert alone[name].fold_similarity == pytest.approx(1)
        assert math.isnan(alone[name].seed_similarity)
        assert math.isnan(one[name].fold_similarity)
        assert one[name].seed_similarity == two[name].seed_similarity < 0.999
        assert mixed[name].fold_similarity == pytest.approx((1 + one[name].seed_similarity) / 2)
    assert math.isnan(mixed["flair"].fold_similarity)


def test_subject_without_mask_has_erasure_only(session, monkeypatch):
    monkeypatch.setattr(session.data, "segmentation", lambda subject: None)
    _, rows = scored(session, randomise=True)
    assert all(math.isnan(row.auc) and math.isnan(row.random_auc) for row in rows.values())
    assert not math.isnan(rows["max"].deletion)


def test_random_row_is_the_same_in_every_run(session):
    assert scored(session)[1]["random"] == scored(session)[1]["random"]
    assert np.isfinite(scored(session)[1]["random"].auc)
