import contextlib
import logging

import pytest
import torch

from util.distributed.world import World
from util.process.launch import UNDER_TORCHRUN, LostRank, launch
from util.process.stopping import STOPPED, Stopped

ALONE = {"device": "cpu", "threads": None, "rank_timeout": 1.0}


def test_work_gets_a_world_threads_and_a_voice(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before, seen = torch.get_num_threads(), []

    def work(world):
        seen.append((world.device.type, world.size, torch.get_num_threads()))
        assert logging.getLogger("util.training.state").isEnabledFor(logging.INFO)

    try:
        launch(work, device="cpu", threads=1, rank_timeout=1.0)
    finally:
        torch.set_num_threads(before)
    assert seen == [("cpu", 1, 1)]


@pytest.mark.parametrize("torchrun", [False, True])
def test_a_polite_stop_has_its_code_which_torchrun_would_take_for_a_failure(monkeypatch, torchrun):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if torchrun:
        monkeypatch.setenv(UNDER_TORCHRUN, "x")
        monkeypatch.setattr("util.process.launch.record", lambda work: work)

    def work(world):
        raise Stopped("by SIGTERM")

    with pytest.raises(SystemExit) as left:
        launch(work, **ALONE)
    assert left.value.code == (0 if torchrun else STOPPED)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [(ValueError("no file x"), ValueError, "rank 1 of 2: no file x"), (KeyError("bug"), KeyError, "bug"),
     (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed"), LostRank, "rank 1 of 2 stops: another rank"),
     (RuntimeError("shapes differ"), RuntimeError, "^shapes differ")],
)  # fmt: skip
def test_a_failing_rank_names_itself_and_is_told_from_one_that_lost_it(monkeypatch, error, raised, message):
    @contextlib.contextmanager
    def second_of_two(*_):
        yield World(1, 2, torch.device("cpu"))

    def work(world):
        raise error

    monkeypatch.setattr("util.process.launch.join_world", second_of_two)
    with pytest.raises(raised, match=message):
        launch(work, **ALONE)
