"""The rendezvous of ranks that torchrun has restarted, under a key prefix of their own.

torchrun keeps one key-value store for all attempts. It gives the ranks of a new attempt no number that all of them
share: its restart count differs between nodes, because a node counts only failures of its own ranks. Without a prefix
of their own, restarted ranks would read the addresses of processes that have ended, and would hang or fail to connect.
"""

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import DistStoreError, PrefixStore, Store

ATTEMPT = "mamba_mae/attempt"
POLL_S = 0.02


def meet(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """The part of `store` that only the ranks of this attempt use. Every rank must call it.

    Rank 0 proposes a prefix, every other rank signs the proposal with an identifier of its own, and rank 0 publishes
    the signatures. A proposal of an earlier attempt never carries the signatures of this one. Raises TimeoutError if
    ranks are missing.
    """
    mine, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    try:
        if rank == 0:
            store.set(ATTEMPT, mine)
            signatures = [f"{mine}/{other}" for other in range(1, size)]
            store.wait(signatures, timeout)
            store.set(f"{mine}/all", json.dumps([store.get(key).decode() for key in signatures]))
            return PrefixStore(mine, store)
        while time.monotonic() < end:
            store.wait([ATTEMPT], timeout)
            attempt = store.get(ATTEMPT).decode()
            store.set(f"{attempt}/{rank}", mine)
            if store.check([f"{attempt}/all"]) and json.loads(store.get(f"{attempt}/all"))[rank - 1] == mine:
                return PrefixStore(attempt, store)
            time.sleep(POLL_S)
    except DistStoreError as error:
        raise _ranks_missing(rank, size, timeout) from error
    raise _ranks_missing(rank, size, timeout)


def _ranks_missing(rank: int, size: int, timeout: timedelta) -> TimeoutError:
    return TimeoutError(
        f"rank {rank} of {size} did not reach all other ranks within --rank_timeout "
        f"{timeout.total_seconds() / 60:g} minutes: check that all nodes run the same command and can reach "
        f"MASTER_ADDR and MASTER_PORT"
    )
