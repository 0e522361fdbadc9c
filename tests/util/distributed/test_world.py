import pytest
import torch
from torch import nn

from util.distributed.world import World, join_world


def test_a_world_of_one_does_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world("cpu") as world:
        assert (world.rank, world.size, world.is_main, world.device.type) == (0, 1, True, "cpu")
        value, model = torch.tensor(3.0), nn.Linear(1, 1)
        assert world.mean(value) is value
        assert world.gather([1]) == [1]
        assert world.wrap(model) is model


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_device_is_named():
    with pytest.raises(ValueError, match="--device cuda"), join_world("cuda"):
        pass


def test_what_the_main_rank_does_fails_for_all(monkeypatch):
    done = []
    World(0, 1, torch.device("cpu")).on_main_rank(lambda: done.append(1))
    assert done == [1]

    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        World(0, 1, torch.device("cpu")).on_main_rank(fail)
    other = World(1, 2, torch.device("cpu"))
    monkeypatch.setattr(World, "gather", lambda self, items: [OSError("disk full"), *items])
    with pytest.raises(OSError, match="disk full"):
        other.on_main_rank(lambda: done.append(2))
    assert done == [1]


def test_only_rank_0_is_main():
    assert not World(1, 2, torch.device("cpu")).is_main
