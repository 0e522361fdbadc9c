"""The ensemble of all folds of a run, and the errors."""

import json

import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import SIZE, save_weights, tiny_classifier, write_finetune_run, write_prepared
from util.data.prepare.study import Prepared, Settings
from util.inference.ensemble import EnsemblePrediction, check_label_types, open_ensemble
from util.inference.probabilities import probabilities
from util.protocol.decision import Decision

CPU = torch.device("cpu")
SUBJECTS = ["A", "B", "C", "D"]


@pytest.fixture
def run(tmp_path):
    data = write_prepared(tmp_path / "data", SUBJECTS)
    return write_finetune_run(tmp_path / "run", data, SUBJECTS)


def edit(run, **changed):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **changed}))


def test_the_prediction_is_the_mean_of_all_folds(run, volume):
    ensemble, scan = open_ensemble(run, CPU), torch.randn(1, 4, *SIZE)
    found = ensemble.predict(scan)
    for fold, model in ensemble.models.items():
        assert found.by_fold[fold] == pytest.approx(probabilities(model, scan)[0, 1].item())
        torch.testing.assert_close(torch.from_numpy(found.features[fold]), model.forward_features(scan)[0].mean(0))
    assert found.by_fold[0] < found.by_fold[1]
    assert found.probability == pytest.approx(sum(found.by_fold.values()) / 2)
    assert EnsemblePrediction({0: 0.2}, {}).sd == 0


def test_each_fold_has_its_own_temperature(run):
    scan = torch.randn(1, 4, *SIZE)
    plain = open_ensemble(run, CPU).predict(scan).by_fold
    Decision(4.0).save(run / "fold_1")
    scaled = open_ensemble(run, CPU).predict(scan).by_fold
    logit = np.log(plain[1] / (1 - plain[1])) / 4
    assert scaled[0] == plain[0]
    assert scaled[1] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)
    edit(run, args={"calibrate": "temperature"})
    with pytest.raises(ValueError, match=r"fold_0.decision\.json is missing"):  # never uncalibrated without a word
        open_ensemble(run, CPU)


def test_mirror_images_and_thresholds_are_those_of_the_run(run):
    scan = torch.randn(1, 4, *SIZE)
    Decision(threshold=0.2, tta="flip").save(run / "fold_0")
    Decision(threshold=0.4, tta="flip").save(run / "fold_1")
    ensemble = open_ensemble(run, CPU)
    found = ensemble.predict(scan)
    for fold, model in ensemble.models.items():
        both = (probabilities(model, scan) + probabilities(model, scan.flip(-1)))[0, 1].item() / 2
        assert found.by_fold[fold] == pytest.approx(both, rel=1e-5)
        torch.testing.assert_close(torch.from_numpy(found.features[fold]), model.forward_features(scan)[0].mean(0))
    assert ensemble.threshold == pytest.approx(0.3)


def test_the_epoch_chosen_on_validation_is_used_where_the_run_used_it(run):
    classifier = tiny_classifier()
    torch.nn.init.constant_(classifier.head.bias, 3.0)
    for fold in range(2):
        save_weights(run / f"fold_{fold}" / "best.pth", classifier)
    assert open_ensemble(run, CPU).models[0].head.bias[0] != 3
    edit(run, args={"select": "best_val"})
    assert open_ensemble(run, CPU).models[0].head.bias[0] == 3


def test_missing_folds_give_a_warning(run):
    (run / "fold_0" / "checkpoint-4.pth").unlink()
    ensemble = open_ensemble(run, CPU)
    assert list(ensemble.models) == [1]
    assert any("only 1 of 2 folds" in warning for warning in ensemble.warnings)
    (run / "fold_1" / "checkpoint-4.pth").unlink()
    with pytest.raises(ValueError, match="has no fold with a checkpoint"):
        open_ensemble(run, CPU)
    edit(run, kind="pretrain")
    with pytest.raises(ValueError, match="is not a fine-tuning run"):
        open_ensemble(run, CPU)


def test_two_runs_of_one_label_type(run):
    with pytest.raises(ValueError, match="both predict IDH"):
        check_label_types([open_ensemble(run, CPU)] * 2)


def test_settings_come_from_the_run_else_the_manifest_else_defaults_with_a_warning(run):
    assert any("defaults of prepare_data.py" in warning for warning in open_ensemble(run, CPU).warnings)
    assert open_ensemble(run, CPU).settings == Settings(size=SIZE)
    data = json.loads((run / "config.json").read_text())["data"]
    edit(run, data={**data, "preparation": Settings(size=SIZE, margin=4).as_json()})
    ensemble = open_ensemble(run, CPU)
    assert (ensemble.settings, ensemble.warnings) == (Settings(size=SIZE, margin=4), ())


def test_a_missing_contrast_is_0_and_the_others_are_as_in_training(run):
    rng = np.random.default_rng(0)
    stored = {name: rng.integers(1, 255, SIZE).astype(np.uint8) for name in ("t2", "flair")}
    box = [(0, 1)] * 3
    prepared = Prepared(stored, None, np.eye(4), box, {}, None, [])  # pyright: ignore[reportArgumentType]
    scan = open_ensemble(run, CPU).model_input(prepared)
    assert scan.shape == (1, 4, *SIZE)
    assert not scan[0, [0, 2]].any()
    torch.testing.assert_close(scan[0, [1, 3]].mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
