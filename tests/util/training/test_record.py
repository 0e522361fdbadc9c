import logging
import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from util.runs import read_metrics
from util.training.record import Progress, Record, peak_memory_mb


def test_epochs_reach_the_file_tensorboard_and_the_console(tmp_path, caplog):
    record = Record(tmp_path, tmp_path / "tb", is_main=True)
    with caplog.at_level(logging.INFO, "util.training.record"):
        record.epoch(0, {"train_loss": 0.5, "test_auc": math.nan})
    record.step(500, {"loss": 0.25})
    record.picture("picture", np.zeros((4, 4, 3), np.uint8), 0)
    record.close()
    assert read_metrics(tmp_path) == [{"epoch": 0, "train_loss": 0.5}]
    assert "epoch 0: train_loss 0.5" in caplog.text
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    assert events.Scalars("train_loss")[0].value == 0.5
    assert events.Scalars("step/loss")[0].step == 500
    assert len(events.Images("picture")) == 1


def test_a_resumed_run_has_no_repeated_epoch(tmp_path):
    for first, epochs in ((0, (0, 1, 2)), (1, (1, 2))):
        record = Record(tmp_path, tmp_path, is_main=True, first_epoch=first)
        for epoch in epochs:
            record.epoch(epoch, {"train_loss": first})
        record.close()
    assert [(row["epoch"], row["train_loss"]) for row in read_metrics(tmp_path)] == [(0, 0), (1, 1), (2, 1)]


def test_a_line_that_was_cut_off_is_repaired_and_a_damaged_one_named(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    assert [row["epoch"] for row in read_metrics(tmp_path)] == [0, 1]
    assert "cut off" in caplog.text
    record = Record(tmp_path, tmp_path, is_main=True, first_epoch=2)
    record.epoch(2, {})
    record.close()
    assert path.read_text() == '{"epoch": 0}\n{"epoch": 1}\n{"epoch": 2}\n'
    path.write_text('{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read_metrics(tmp_path)


def test_epochs_that_a_resumed_run_lacks_are_said(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0}\n')
    Record(tmp_path, tmp_path, is_main=True, first_epoch=3).close()
    assert "lacks epochs [1, 2]" in caplog.text


def test_numbers_that_are_not_finite_reach_no_step_curve(tmp_path):
    record = Record(tmp_path, tmp_path, is_main=True)
    record.step(0, {"loss": math.nan, "lr": 1.0})
    record.close()
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"] == ["step/lr"]


def test_other_ranks_write_nothing(tmp_path):
    record = Record(tmp_path / "run", tmp_path / "run", is_main=False)
    record.epoch(0, {"a": 1.0})
    record.step(0, {"a": 1.0})
    record.close()
    assert not (tmp_path / "run").exists()


def test_progress_of_a_resumed_epoch_counts_what_was_done_before(caplog):
    with caplog.at_level(logging.INFO, "util.training.record"):
        list(Progress("epoch 3", is_main=True)(range(4), 8, 4))
    assert "epoch 3 6/8" in caplog.text
    assert "epoch 3 4/8" not in caplog.text


@pytest.mark.parametrize("is_main", [True, False])
def test_progress_is_plain_lines_without_a_terminal(caplog, is_main):
    progress = Progress("epoch 3", is_main=is_main)
    progress.show(loss="0.5")
    with caplog.at_level(logging.INFO, "util.training.record"):
        assert list(progress(range(8), 8)) == list(range(8))
    assert ("epoch 3 4/8 loss 0.5 ETA 0 s" in caplog.text) == is_main


def test_peak_memory_is_that_of_a_python_with_torch():
    assert 50 < peak_memory_mb(torch.device("cpu")) < 100_000
