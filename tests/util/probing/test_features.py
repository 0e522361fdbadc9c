"""Features of a frozen model: each volume's own, cached, and computed again if anything changed."""

import logging

import numpy as np
import pytest
import torch

from models import create_model
from tests.helpers.prepared import SIDE, make_prepared
from util.data.dataset import PreparedVolumes
from util.data.folder import volume_path
from util.probing.features import cached, extract_features, file_hash, state_of_volumes
from util.training.eval_mode import evaluating

FIELDS = {"img_size": SIDE, "embed_dim": 12, "depth": 2, "d_state": 2, "decoder_embed_dim": 12, "decoder_depth": 1}


@pytest.fixture
def volumes(tmp_path):
    return PreparedVolumes(make_prepared(tmp_path, count=3, unknown=0))


def test_features_are_those_of_the_model_in_evaluation_mode(volumes):
    mae = create_model("mae_3d_vim_tiny_patch8", **FIELDS, drop_path_rate=0.5).train()
    for pool, pooled in (("mean", torch.mean), ("max", torch.amax)):
        features = extract_features(mae, volumes, [0, 1], pool=pool, batch_size=2)
        assert features.shape == (3, 2, 12)
        with evaluating(mae):
            tokens = mae.encode(volumes[2][0].unsqueeze(0))
        np.testing.assert_allclose(features[2, 1], pooled(tokens, 1)[0], atol=1e-5)
        assert all(module.training for module in mae.modules())  # the mode that the caller chose
    assert not np.allclose(features[:, 0], features[:, 1])


def test_features_that_are_not_finite_name_the_subject(volumes):
    mae = create_model("mae_3d_vim_tiny_patch8", **FIELDS)
    with torch.no_grad():
        mae.norm_f.weight[0] = torch.nan
    with pytest.raises(ValueError, match='subject "sub-00" are not finite'):
        extract_features(mae, volumes, [1])


def test_computed_once_for_the_same_and_again_for_another(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return np.full(3, len(calls), np.float32)

    first = cached(tmp_path, {"weights": "a", "layers": [1, 2]}, compute)
    np.testing.assert_array_equal(cached(tmp_path, {"layers": [1, 2], "weights": "a"}, compute), first)
    assert cached(tmp_path, {"weights": "b", "layers": [1, 2]}, compute)[0] == 2
    assert cached(tmp_path, {"weights": "a", "layers": [1]}, compute)[0] == 3
    assert len(calls) == 3


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04no zip"])
def test_a_damaged_cache_is_computed_again(tmp_path, damage, caplog):
    cached(tmp_path, {"a": 1}, lambda: np.ones(2))
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING, "util.probing.features"):
        np.testing.assert_array_equal(cached(tmp_path, {"a": 1}, lambda: np.zeros(2)), np.zeros(2))
    assert "computing the features again" in caplog.text
    np.testing.assert_array_equal(cached(tmp_path, {"a": 1}, lambda: np.ones(2)), np.zeros(2))


def test_changed_files_are_detected(volumes, tmp_path):
    before = state_of_volumes(volumes)
    assert state_of_volumes(volumes) == before
    path = volume_path(volumes.root, "sub-01", "flair")
    np.save(path, np.load(path) + 1)
    after = state_of_volumes(volumes)
    assert [new[:2] for old, new in zip(before, after) if old != new] == [["sub-01", "flair"]]
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    assert file_hash(tmp_path / "a") != file_hash(tmp_path / "b")
