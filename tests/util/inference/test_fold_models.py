"""The models of a run's folds that maps are compared with."""

import json

import pytest

from tests.helpers.vis_cases import write_finetune_run, write_prepared
from util.inference.fold_models import FoldModels, repeated_run, shuffled_run

SUBJECTS = ["A", "B", "C", "D"]  # fold 0 holds out A and C, fold 1 B and D


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    data = write_prepared(root / "data", SUBJECTS)
    write_finetune_run(root / "run", data, SUBJECTS)
    write_finetune_run(root / "seed", data, SUBJECTS[::-1])
    return root


def edit(run, **changed):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, **changed}))


def bias(model):
    return model.head.bias[1].item()


def test_a_subject_is_shown_by_the_fold_that_holds_it_out(root):
    models = FoldModels(root / "run", root / "data", "cpu")
    first, second = (bias(models.model(fold)) for fold in (0, 1))
    assert first != second
    assert bias(models.holding_out("C")) == first
    assert bias(models.holding_out("B")) == second
    assert models.holding_out("E") is None
    assert [bias(model) for model in models.others(0)] == [second]
    assert models.model(1) is models.holding_out("D")  # opened once


def test_folds_without_a_checkpoint_are_left_out(root, tmp_path):
    run = write_finetune_run(tmp_path / "run", root / "data", SUBJECTS)
    (run / "fold_1" / "checkpoint-4.pth").unlink()
    models = FoldModels(run, root / "data", "cpu")
    assert models.others(0) == []
    assert models.holding_out("B") is None
    assert models.holding_out("A") is models.model(0)


def test_only_shuffled_labels_are_shuffled(root, tmp_path):
    run = write_finetune_run(tmp_path / "run", root / "data", SUBJECTS)
    for control in ({}, {"control": "noise"}):
        edit(run, args=control)
        with pytest.raises(ValueError, match=f"--control {control.get('control', 'none')}: give a run of"):
            shuffled_run(run, root / "data", "cpu")
    edit(run, args={"control": "shuffled_labels"})
    assert shuffled_run(run, root / "data", "cpu").run == run


def test_a_repeat_has_the_same_labels_and_model(root, tmp_path):
    assert repeated_run(root / "seed", root / "run", root / "data", "cpu").run == root / "seed"
    other = write_finetune_run(tmp_path / "run", root / "data", SUBJECTS)
    for changed in ({"label_type": "1p19q"}, {"label_type": "IDH", "args": {"control": "shuffled_labels"}}):
        edit(other, **changed)
        with pytest.raises(ValueError, match=r"with another --seed"):
            repeated_run(other, root / "run", root / "data", "cpu")
    with pytest.raises(ValueError, match=r"with another --seed"):
        repeated_run(root / "run", root / "run", root / "data", "cpu")
