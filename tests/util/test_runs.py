import os

import pytest

from util.run_folder import checkpoint_path
from util.runs import checkpoints, last_checkpoint, newest_run, read_config, start_run, write_json


def test_config_records_what_a_repeat_needs(tmp_path):
    start_run(tmp_path / "run", {"kind": "pretrain"}, resume=False, overwrite=False)
    config = read_config(tmp_path / "run")
    assert config["kind"] == "pretrain"
    assert config["versions"]["torch"].startswith("2.")
    assert config["command"]
    with pytest.raises(ValueError, match="no config"):
        read_config(tmp_path)


def test_an_existing_run_is_not_overwritten_unasked(tmp_path):
    start_run(tmp_path, {"kind": "pretrain"}, resume=False, overwrite=False)
    (tmp_path / "checkpoint-3.pth").touch()
    with pytest.raises(ValueError, match="--resume auto"):
        start_run(tmp_path, {}, resume=False, overwrite=False)
    start_run(tmp_path, {}, resume=True, overwrite=False)
    assert last_checkpoint(tmp_path).name == "checkpoint-3.pth"
    start_run(tmp_path, {}, resume=False, overwrite=True)
    assert checkpoints(tmp_path) == []


def test_overwriting_leaves_no_result_of_the_old_run(tmp_path):
    start_run(tmp_path, {"kind": "finetune"}, resume=False, overwrite=False)
    results = ["results.json", "results.xlsx", "predictions.csv", "folds.json", "contrasts.csv", "vis/truth/truth.json",
               "events.out.tfevents.1", "fold_0/checkpoint-1.pth", "reference/a.npy"]  # fmt: skip
    for name in [*results, "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    start_run(tmp_path, {"kind": "finetune"}, resume=False, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "notes.txt"]


def test_newest_run_of_a_kind(tmp_path):
    for age, (name, kind) in enumerate([("a", "pretrain"), ("deep/b", "pretrain"), ("c", "finetune")]):
        path = tmp_path / name / "config.json"
        write_json(path, {"kind": kind})
        os.utime(path, (1000 + age, 1000 + age))
    assert newest_run([tmp_path], "pretrain") == tmp_path / "deep" / "b"
    with pytest.raises(ValueError, match="no finetune run below"):
        newest_run([tmp_path / "a"], "finetune")


def test_checkpoints_sort_by_epoch_not_by_name(tmp_path):
    for epoch in (9, 10, 100):
        checkpoint_path(tmp_path, epoch).touch()
    for step in (10, 9):
        checkpoint_path(tmp_path, 10, step).touch()
    (tmp_path / ".checkpoint-999.pth.x.tmp").touch()
    (tmp_path / "checkpoint-999.pth.damaged").touch()
    assert [path.name for path in checkpoints(tmp_path)] == [
        "checkpoint-9.pth",
        "checkpoint-10-step-9.pth",
        "checkpoint-10-step-10.pth",
        "checkpoint-10.pth",
        "checkpoint-100.pth",
    ]
    with pytest.raises(ValueError, match="holds no checkpoint"):
        last_checkpoint(tmp_path / "nowhere")
