"""Ranks that torchrun starts again meet under a new name, apart from what the attempts before left behind.

torchrun keeps one key-value store for all attempts and tells the ranks of a new one nothing that all of them know
alike: its restart count differs between nodes, since a node whose own ranks did not fail does not count. Without a
name of their own they find the addresses of processes that are gone, and hang or are refused.
"""

import json
import time
import uuid
from datetime import timedelta

from torch.distributed import DistStoreError, PrefixStore, Store

ATTEMPT = "mamba_mae/attempt"
POLL_S = 0.02


def meet(store: Store, rank: int, size: int, timeout: timedelta) -> Store:
    """The part of `store` that only the ranks which run now use; every one of them must call it.

    Rank 0 proposes a name, the others sign it with a name of their own, rank 0 publishes the signatures. A proposal
    of an earlier attempt never gets those of this one. Raises TimeoutError where ranks do not come.
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
        raise _nobody_came(rank, size, timeout) from error
    raise _nobody_came(rank, size, timeout)


def _nobody_came(rank: int, size: int, timeout: timedelta) -> TimeoutError:
    return TimeoutError(
        f"rank {rank} of {size} met no others within --rank_timeout {timeout.total_seconds() / 60:g} minutes: see "
        f"whether all nodes run the same command and can reach MASTER_ADDR and MASTER_PORT"
    )
