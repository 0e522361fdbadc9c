"""Opening a run: the right weights, the right data, and the errors if they are missing."""

import dataclasses
import math
import shutil

import pytest
import torch

from tests.helpers.vis_cases import write_finetune_run, write_prepared, write_pretrain_run
from util.data.phantom.study import subject_name
from util.inference.open_run import choose_subjects, open_run
from util.inference.probabilities import probabilities
from util.protocol.decision import Decision

SUBJECTS = ["A", "B", "C", "D"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("session")
    data = write_prepared(root / "data", SUBJECTS)
    write_pretrain_run(root / "pre", data)
    write_finetune_run(root / "fine", data, SUBJECTS)
    return root


def weights(session):
    return session.model.state_dict()


def test_last_checkpoint_is_loaded_and_another_on_request(folder):
    last = open_run(folder / "pre", "pretrain", device="cpu")
    assert last.checkpoint.name == "checkpoint-1.pth"
    stored = torch.load(folder / "pre" / "checkpoint-1.pth", weights_only=True)["model"]
    assert all(torch.equal(value, weights(last)[key]) for key, value in stored.items())
    first = open_run(folder / "pre", "pretrain", checkpoint=folder / "pre" / "checkpoint-0.pth", device="cpu")
    assert not torch.equal(weights(first)["decoder_pred.bias"], weights(last)["decoder_pred.bias"])
    assert not last.model.training


def test_each_fold_has_its_own_weights(folder):
    zero, one = (open_run(folder / "fine", "finetune", fold=fold, device="cpu") for fold in (0, 1))
    assert weights(one)["head.bias"][1] == weights(zero)["head.bias"][1] + 1


def test_study_is_the_item_of_the_data_set(folder):
    session = open_run(folder / "pre", "pretrain", device="cpu")
    study = session.study("C")
    volume, _ = session.data[2]
    assert torch.equal(session.batch(study)[0], volume)
    assert study.oriented
    assert study.segmentation_ZYX is not None
    assert study.segmentation_ZYX.any()


def test_phantoms_are_known_by_their_generators_names(tmp_path):
    data = write_prepared(tmp_path / "data", ["A", subject_name("egd", 0)])
    run = write_pretrain_run(tmp_path / "run", data)
    assert open_run(run, "pretrain", device="cpu").study("A").phantom


def test_sides_are_not_lettered_without_a_manifest(tmp_path):
    data = write_prepared(tmp_path / "data", ["A"])
    (data / "manifest.csv").unlink()
    run = write_pretrain_run(tmp_path / "run", data)
    assert not open_run(run, "pretrain", device="cpu").study("A").oriented


def test_wrong_kind_of_run_names_the_other_program(folder):
    with pytest.raises(ValueError, match=r"not a pretrain run; visualize_finetuned\.py"):
        open_run(folder / "fine", "pretrain")
    with pytest.raises(ValueError, match=r"not a finetune run; visualize\.py"):
        open_run(folder / "pre", "finetune", fold=0)


def test_absent_data_checkpoint_and_wrong_size(folder, tmp_path):
    with pytest.raises(ValueError, match="--data"):
        open_run(folder / "pre", "pretrain", data=tmp_path / "gone", device="cpu")
    with pytest.raises(ValueError, match=r"no checkpoint-N\.pth"):
        open_run(folder / "fine", "finetune", fold=7, device="cpu")
    other = write_prepared(tmp_path / "other", ["A"], size=(16, 16, 16))
    with pytest.raises(ValueError, match=r"\(16, 16, 16\) voxels, the run was trained on \(16, 24, 16\)"):
        open_run(folder / "pre", "pretrain", data=other, device="cpu")
    with pytest.raises(ValueError, match="not of this model"):
        open_run(folder / "pre", "pretrain", checkpoint=folder / "fine" / "fold_0" / "checkpoint-4.pth", device="cpu")


def test_another_fidelity_still_needs_every_parameter(folder):
    session = open_run(folder / "fine", "finetune", fold=0, device="cpu", fidelity="paper")
    assert session.model.config.fidelity == "paper"
    stored = torch.load(folder / "fine" / "fold_0" / "checkpoint-4.pth", weights_only=True)["model"]
    assert all(torch.equal(value, weights(session)[key]) for key, value in stored.items())
    with pytest.raises(ValueError, match=r"not of this model: it lacks head\.weight"):
        open_run(folder / "fine", "finetune", fold=0, device="cpu", fidelity="paper",
                 checkpoint=folder / "pre" / "checkpoint-0.pth")  # fmt: skip


def test_subjects_by_name_or_number():
    assert choose_subjects(["2"], SUBJECTS) == ["A", "B"]
    assert choose_subjects(["D", "A", "D"], SUBJECTS) == ["D", "A"]
    assert choose_subjects(["2"], ["1", "2", "3"]) == ["2"]  # a subject may be called 2
    with pytest.raises(ValueError, match=r'no "Ab".*did you mean'):
        choose_subjects(["Ab"], ["Abc", "X"])
    for number in ("0", "5"):
        with pytest.raises(ValueError, match="choose 1 to 4"):
            choose_subjects([number], SUBJECTS)


def test_a_fold_is_shown_with_the_weights_views_and_threshold_that_it_is_tested_with(folder, tmp_path):
    run = tmp_path / "fine"
    shutil.copytree(folder / "fine", run)
    shutil.copy(run / "fold_1" / "checkpoint-4.pth", run / "fold_0" / "best.pth")
    Decision(3.0, 0.6, "best_val", "flip").save(run / "fold_0")
    last, chosen = (open_run(at / "fine", "finetune", fold=0, device="cpu") for at in (folder, tmp_path))
    assert (last.checkpoint.name, chosen.checkpoint.name) == ("checkpoint-4.pth", "best.pth")
    assert not torch.equal(weights(last)["head.bias"], weights(chosen)["head.bias"])
    scan = chosen.batch(chosen.study("A"))
    both = sum(probabilities(chosen.model, view)[0, 1].item() for view in (scan, scan.flip(-1))) / 2
    expected = 1 / (1 + math.exp(-math.log(both / (1 - both)) / 3))
    assert chosen.probability(scan) == pytest.approx(expected, rel=1e-4)
    for threshold, called in ((expected - 0.01, 1), (expected + 0.01, 0)):
        decided = dataclasses.replace(chosen, decision=Decision(3.0, threshold, "best_val", "flip"))
        assert decided.predicted_class(decided.probability(scan)) == called
    named = open_run(run, "finetune", fold=0, checkpoint=run / "fold_0" / "checkpoint-4.pth", device="cpu")
    assert named.decision == Decision()
    (run / "fold_0" / "best.pth").unlink()
    with pytest.raises(ValueError, match=r"holds no best\.pth"):
        open_run(run, "finetune", fold=0, device="cpu")
