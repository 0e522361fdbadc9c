"""A new scan is compared with held-out subjects, whose features are computed in the same way, once."""

import numpy as np
import pytest
import torch

import util.patient.reference_features
from tests.helpers.vis_cases import write_finetune_run, write_prepared
from util.data.dataset import PreparedVolumes
from util.inference.ensemble import open_ensemble
from util.patient.reference_features import reference_features, without

SUBJECTS = [f"S{number:02d}" for number in range(13)]


@pytest.fixture
def ensemble(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS)
    return open_ensemble(write_finetune_run(tmp_path / "run", data, SUBJECTS), torch.device("cpu"))


def features(ensemble, fold, subject, hidden=()):
    volumes = PreparedVolumes(ensemble.data_root, subjects=[subject], transform=without(hidden))
    return ensemble.predict(volumes[0][0].unsqueeze(0)).features[fold]


@pytest.mark.parametrize(("missing", "channels"), [((), ()), (("t1", "t1ce"), (0, 2))])
def test_references_are_the_held_out_subjects_as_a_new_scan_is_seen(ensemble, missing, channels):
    for fold, reference in enumerate(reference_features(ensemble, missing, 40)):
        expected = [features(ensemble, fold, subject, channels) for subject in SUBJECTS[fold::2]]
        np.testing.assert_allclose(reference.features, expected, atol=1e-5)


def test_no_more_than_the_limit_and_from_the_whole_list(ensemble):
    first = reference_features(ensemble, (), 5)[0].features
    assert len(first) == 5
    np.testing.assert_allclose(first[-1], features(ensemble, 0, "S12"), atol=1e-5)


def test_computed_once_and_again_for_other_contrasts(ensemble, monkeypatch):
    before = reference_features(ensemble, (), 40)
    computed = []
    original = util.patient.reference_features.extract_features
    monkeypatch.setattr(
        util.patient.reference_features, "extract_features", lambda *a, **k: computed.append(1) or original(*a, **k)
    )
    again = reference_features(ensemble, (), 40)
    assert computed == []
    np.testing.assert_array_equal(before[1].features, again[1].features)
    reference_features(ensemble, ("t2",), 40)
    assert computed == [1, 1]


def test_too_few_subjects_are_no_reference(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS[:4])
    run = write_finetune_run(tmp_path / "run", data, SUBJECTS[:4])
    assert reference_features(open_ensemble(run, torch.device("cpu")), (), 40) == [None, None]
