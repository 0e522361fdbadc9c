import torch
import torch.distributed as dist
import torch.multiprocessing

from util.distributed.consensus import Agreement
from util.distributed.world import World


def test_alone_a_wish_is_granted_at_once():
    agree = Agreement(World(0, 1, torch.device("cpu")))
    assert [agree(wish) for wish in (0, 2, 1)] == [0, 2, 1]


def wishes_of_two(rank, store, found):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    agree = Agreement(World(rank, 2, torch.device("cpu")))
    found[rank] = torch.tensor([agree(wish) for wish in ([0, 1, 0, 0], [0, 0, 2, 0])[rank]])
    dist.destroy_process_group()


def test_ranks_hear_the_largest_wish_at_the_same_call_one_later(tmp_path):
    found = torch.full((2, 4), -1).share_memory_()
    torch.multiprocessing.spawn(wishes_of_two, (str(tmp_path / "store"), found), nprocs=2)
    assert found.tolist() == [[0, 0, 1, 2]] * 2
