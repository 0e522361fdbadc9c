import torch
import torch.distributed as dist
import torch.multiprocessing

from util.distributed.consensus import Consensus
from util.distributed.world import World


def test_a_single_process_gets_its_own_request_at_once():
    agree = Consensus(World(0, 1, torch.device("cpu")))
    assert [agree(request) for request in (0, 2, 1)] == [0, 2, 1]


def requests_of_two(rank, store, answers):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    agree = Consensus(World(rank, 2, torch.device("cpu")))
    answers[rank] = torch.tensor([agree(request) for request in ([0, 1, 0, 0], [0, 0, 2, 0])[rank]])
    dist.destroy_process_group()


def test_all_ranks_get_the_largest_request_one_call_later(tmp_path):
    answers = torch.full((2, 4), -1).share_memory_()
    torch.multiprocessing.spawn(requests_of_two, (str(tmp_path / "store"), answers), nprocs=2)
    assert answers.tolist() == [[0, 0, 1, 2]] * 2
