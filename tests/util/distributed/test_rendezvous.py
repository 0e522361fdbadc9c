import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore

from util.distributed.rendezvous import meet

SECONDS = timedelta(seconds=120)


def names(store, ranks, delay_s=0.0):
    """What every rank of one attempt meets under; rank 0 comes last by delay_s."""

    def join(rank):
        if rank == 0:
            threading.Event().wait(delay_s)
        part = meet(store, rank, ranks, SECONDS)
        part.set(f"seen by {rank}", "")
        return part

    with ThreadPoolExecutor(ranks) as pool:
        parts = list(pool.map(join, range(ranks)))
    assert all(part.check([f"seen by {rank}" for rank in range(ranks)]) for part in parts)
    return parts


def test_ranks_that_start_again_do_not_see_what_was_left_behind():
    store = PrefixStore("job", HashStore())
    for _ in range(3):
        first, *_ = names(store, 3)
        assert not first.check(["address"])
        first.set("address", "of a process that will be gone")
        names(store, 3, delay_s=0.1)  # rank 0 last: the others find the proposal of the attempt before


def test_an_attempt_that_one_rank_never_joined_leaves_no_trace():
    store = HashStore()
    with pytest.raises(TimeoutError, match=r"rank 0 of 3 did not reach .* --rank_timeout 0\.00"):
        meet(store, 0, 3, timedelta(seconds=0.2))
    with pytest.raises(TimeoutError, match="rank 2 of 3 did not reach"):
        meet(store, 2, 3, timedelta(seconds=0.2))
    names(store, 3, delay_s=0.1)


def test_nobody_proposes():
    with pytest.raises(TimeoutError, match="rank 1 of 2"):
        meet(HashStore(), 1, 2, timedelta(seconds=0.2))
