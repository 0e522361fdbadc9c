"""Some of the kills of `make torture`, and ranks that fail or stop on a signal."""

import random
import shutil
import signal

import pytest
import torch

from tests.helpers.prepared import make_prepared
from tests.robustness import torture
from util.checkpoint.loading import save_checkpoint
from util.process.stopping import STOPPED
from util.run_folder import checkpoint_path
from util.training.state import newest_readable


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@pytest.mark.slow
def test_a_killed_pretraining_ends_like_an_uninterrupted_one(data, tmp_path):
    job = torture.JOBS[0]
    torture.run(job, data, tmp_path / "whole")
    for _ in range(2):
        assert torture.interrupt(job, data, tmp_path / "cut", signal.SIGKILL, [0], saves=1) == [-signal.SIGKILL]
    torture.run(job, data, tmp_path / "cut")
    assert torture.bytes_that_differ(tmp_path / "cut", tmp_path / "whole") == 0


@pytest.mark.slow
def test_two_ranks_stop_together_and_survive_the_death_of_one(data, tmp_path):
    job = torture.JOBS[3]
    torture.run(job, data, tmp_path / "whole")
    codes = torture.interrupt(job, data, tmp_path / "cut", signal.SIGTERM, [1], saves=1)
    assert codes == [STOPPED, STOPPED], torture.log_of(tmp_path / "cut").read_text()
    codes = torture.interrupt(job, data, tmp_path / "cut", signal.SIGKILL, [1], saves=1)
    assert codes == [2, -signal.SIGKILL], torture.log_of(tmp_path / "cut").read_text()
    torture.run(job, data, tmp_path / "cut")
    assert torture.bytes_that_differ(tmp_path / "cut", tmp_path / "whole") == 0


@pytest.mark.slow
def test_a_failing_rank_ends_the_others_and_its_message_comes_first(data, tmp_path):
    job = torture.JOBS[1]
    broken = shutil.copytree(data, tmp_path / "broken")
    for path in broken.glob("t1/*.npy"):
        path.write_bytes(path.read_bytes()[:-100])  # the headers stay valid, so it fails within an epoch
    ranks = torture.start(job, data, tmp_path / "run", {1: job.arguments(broken, tmp_path / "run")})
    assert torture.end(ranks) == [2, 2]
    errors = [line for line in torture.log_of(tmp_path / "run").read_text().splitlines() if line.startswith("error: ")]
    assert errors[0].startswith("error: rank 1 of 2: ")
    assert errors[1].startswith("error: rank 0 of 2 stops: another rank ended")


def test_corruptions_are_recognised(tmp_path):
    for epoch in range(2):
        save_checkpoint(checkpoint_path(tmp_path, epoch), {"model": {}, "epoch": epoch, "tallies": None})
    counts = torture.corrupt(tmp_path, 40, random.Random(0))
    assert set(counts.values()) == {(10, 10)}
    checkpoint_path(tmp_path, 1).write_bytes(checkpoint_path(tmp_path, 0).read_bytes())  # a whole file
    assert newest_readable(tmp_path) == checkpoint_path(tmp_path, 1)


def test_differences_are_seen(tmp_path):
    for name, weight in (("a", 1.0), ("b", 1.0), ("c", 1.5)):
        save_checkpoint(checkpoint_path(tmp_path / name, 0), {"model": {"w": torch.tensor(weight)}, "epoch": 0})
        (tmp_path / name / "metrics.jsonl").write_text(f'{{"epoch": 0, "seconds": {weight}}}\n')
    assert torture.bytes_that_differ(tmp_path / "b", tmp_path / "a") == 0
    assert torture.bytes_that_differ(tmp_path / "c", tmp_path / "a") > 0
    (tmp_path / "b" / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 0}\n')
    assert torture.bytes_that_differ(tmp_path / "b", tmp_path / "a") > 0
