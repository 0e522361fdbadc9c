"""Failures of data while training are said as what they are, and survived once where that may help."""

import gc
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from util.data.folder import BadVolume
from util.distributed.world import World
from util.options.groups import DataOptions
from util.options.pretrain import PretrainOptions, PretrainRunOptions
from util.training.data_failures import WorkerKilled, explained, with_one_restart

ALONE = World(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _no_collection():
    """PyTorch's handler raises wherever the main process is when a child dies; in a callback of the collector Python
    cannot pass that on, and warns. A run notices the death five seconds later all the same; a test would fail."""
    gc.disable()
    yield
    gc.enable()


class Deadly(Dataset):
    """Item 3 ends the process that loads it: by this signal, by leaving, or by an exception."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 3:
            if isinstance(self.how, Exception):
                raise self.how
            os.kill(os.getpid(), self.how)
        return torch.tensor(index)


def load(how):
    for _ in DataLoader(Deadly(how), num_workers=1):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGBUS])
def test_killed_process_is_named_as_that(how):
    messages = r"data-loading process (is killed by signal|exited).*memory.*--num_workers 1.*/dev/shm"
    with pytest.raises(WorkerKilled, match=messages), explained(num_workers=1):
        load(how)


def test_bad_volume_comes_without_the_traceback_of_its_process():
    with pytest.raises(BadVolume) as caught, explained(num_workers=1):
        load(BadVolume("/data/t1/A_t1.npy is missing"))
    assert str(caught.value).startswith("/data/t1/A_t1.npy is missing; or let others stand in")
    assert "--on_bad_volume skip" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("CUDA out of memory"), KeyError("x"), ValueError("--lr")):
        with pytest.raises(type(error), match=r"CUDA|x|--lr") as caught, explained(num_workers=1):
            raise error
        assert caught.value is error
    with pytest.raises(RuntimeError, match="Caught RuntimeError in DataLoader worker"), explained(num_workers=1):
        load(RuntimeError("a mistake of ours"))


def options(folder: Path, resume=None, max_minutes=None) -> PretrainOptions:
    run = PretrainRunOptions(output_dir=folder, resume=resume, overwrite=True, max_minutes=max_minutes)
    return PretrainOptions(data=DataOptions(num_workers=1), run=run)


def test_run_continues_once_from_its_last_checkpoint(tmp_path, caplog):
    seen = []

    def work(options, world, stop):
        seen.append((options.run.resume, options.run.overwrite))
        if len(seen) == 2:
            raise ValueError("the end")
        load(signal.SIGKILL)

    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match="the end"):
        with_one_restart(work, options(tmp_path))(ALONE)
    assert seen == [(None, True), ("auto", False)]
    assert "continuing from the last checkpoint" in caplog.text


def test_second_time_ends_the_run(tmp_path):
    seen = []

    def work(options, world, stop):
        seen.append(options.run.resume)
        load(signal.SIGKILL)

    with pytest.raises(WorkerKilled):
        with_one_restart(work, options(tmp_path))(ALONE)
    assert seen == [None, "auto"]


def test_several_ranks_do_not_continue_alone(tmp_path):
    seen = []

    def work(options, world, stop):
        seen.append(options.run.resume)
        load(signal.SIGKILL)

    with pytest.raises(WorkerKilled):
        with_one_restart(work, options(tmp_path))(World(0, 2, torch.device("cpu")))
    assert seen == [None]


@pytest.mark.parametrize("has_own", [False, True])
def test_named_checkpoint_is_taken_again_until_the_run_has_its_own(tmp_path, has_own):
    if has_own:
        (tmp_path / "checkpoint-0.pth").touch()
    seen = []

    def work(options, world, stop):
        seen.append(options.run.resume)
        if len(seen) == 1:
            load(signal.SIGKILL)

    with_one_restart(work, options(tmp_path, "elsewhere/checkpoint-7.pth"))(ALONE)
    assert seen[1] == ("auto" if has_own else "elsewhere/checkpoint-7.pth")


@pytest.mark.parametrize("number", [signal.SIGTERM, None])
def test_request_to_stop_holds_for_the_second_attempt(tmp_path, number):
    seen = []

    def work(options, world, stop):
        seen.append(stop.reason)
        if len(seen) == 1:
            with stop:
                if number is not None:
                    os.kill(os.getpid(), number)
                else:
                    stop.started -= 3601
                load(signal.SIGKILL)

    with_one_restart(work, options(tmp_path, max_minutes=60))(ALONE)
    assert seen == [None, "SIGTERM" if number else "--max_minutes 60"]
