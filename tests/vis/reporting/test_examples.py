"""Example figures: held-out subjects only, with captions that state the use of each subject."""

import shutil

import pytest

from tests.helpers.vis_cases import texts, write_finetune_run, write_prepared, write_pretrain_run
from util.evaluation.predictions import Prediction
from vis.reporting.examples import alternate_classes, held_out_examples, map_examples, reconstruction_examples

SUBJECTS = ["E", "F", "G", "H"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples")
    pre = write_pretrain_run(root / "pre", write_prepared(root / "brats", ["P", "Q"]))
    return pre, write_finetune_run(root / "fine", write_prepared(root / "egd", SUBJECTS), SUBJECTS)


def test_classes_alternate():
    labels = {name: Prediction(name, 0, label, 0.5) for name, label in zip("ABCDE", (0, 0, 0, 1, 1), strict=True)}
    assert alternate_classes(list("ABCDE"), labels) == ["A", "D", "B", "E", "C"]
    assert alternate_classes(["X", "A"], labels) == ["A", "X"]


def test_examples_are_of_the_first_fold_with_a_checkpoint(runs, tmp_path):
    copy = shutil.copytree(runs[1], tmp_path / "fine")
    assert held_out_examples(copy, 9) == (0, ["E", "G"])
    (copy / "fold_0" / "checkpoint-4.pth").unlink()
    assert held_out_examples(copy, 1) == (1, ["F"])
    (copy / "fold_1" / "checkpoint-4.pth").unlink()
    with pytest.raises(ValueError, match=r"no fold of .* has a checkpoint"):
        held_out_examples(copy, 1)


def test_maps_are_of_held_out_subjects(runs):
    examples = map_examples(runs[1], 2, "cpu")
    assert [example.caption[:2] for example in examples] == ["E:", "G:"]
    assert all("held out in fold 0" in example.caption for example in examples)
    assert "E" in texts(examples[0].figure)


def test_reconstructions_prefer_subjects_that_were_not_in_pretraining(runs):
    examples = reconstruction_examples(*runs, 2, "cpu")
    assert [example.caption.split(" · ")[0] for example in examples] == [
        "E: not among the pre-training subjects", "G: not among the pre-training subjects",
    ]  # fmt: skip


def test_without_other_data_the_caption_says_seen_in_pretraining(runs, tmp_path):
    for finetune in (
        None,
        write_finetune_run(tmp_path / "same", write_prepared(tmp_path / "again", ["P", "Q"]), ["P", "Q"]),
    ):
        examples = reconstruction_examples(runs[0], finetune, 1, "cpu")
        assert examples[0].caption.startswith("P: seen in pre-training")


def test_volumes_of_another_size_are_not_used(runs, tmp_path):
    other = write_prepared(tmp_path / "small", SUBJECTS, size=(16, 16, 16))
    fine = write_finetune_run(tmp_path / "fine", other, SUBJECTS)
    assert reconstruction_examples(runs[0], fine, 1, "cpu")[0].caption.startswith("P: seen")
