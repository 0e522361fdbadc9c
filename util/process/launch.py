"""Start of a training process: it joins its ranks, sets logging and threads, ends with a defined exit code."""

import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record

from util import cli
from util.distributed.world import World, join_world
from util.process.allocator import keep_memory
from util.process.stopping import STOPPED, Stopped

logger = logging.getLogger(__name__)
UNDER_TORCHRUN = "TORCHELASTIC_RUN_ID"


class LostRank(OSError):
    """Another rank ended, or did not answer in time."""


def launch(work: Callable[[World], None], *, device: str, threads: int | None, rank_timeout: float) -> None:
    """Call work(world) on --device with --threads; ranks other than the main one log warnings only.

    rank_timeout: minutes. Ends with exit code `STOPPED` where the work stopped because it was asked to; under torchrun
    with 0, because it takes any other code for a failure and would start the ranks again.
    """
    with join_world(device, timedelta(minutes=rank_timeout)) as world:
        cli.setup_logging(logging.INFO if world.is_main else logging.WARNING)
        if threads:
            torch.set_num_threads(threads)
        keep_memory()
        under_torchrun = UNDER_TORCHRUN in os.environ
        run = record(_naming_the_rank) if under_torchrun else _naming_the_rank
        try:
            run(work, world, rank_timeout)
        except Stopped as stopped:
            logger.info("%s", stopped)
            sys.exit(0 if under_torchrun else STOPPED)


def _naming_the_rank(work: Callable[[World], None], world: World, rank_timeout: float) -> None:
    """Call work(world). On several ranks an error names its rank, so that the rank that failed first can be told from
    those that only lost it; torchrun's summary begins with the first one, whose message `record` passes on."""
    try:
        work(world)
    except (ValueError, OSError) as error:
        if world.size > 1:
            kind = OSError if isinstance(error, OSError) else ValueError  # a subclass may take other arguments
            raise kind(f"rank {world.rank} of {world.size}: {error}") from error
        raise
    except RuntimeError as error:
        if world.size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise LostRank(
                f"rank {world.rank} of {world.size} stops: another rank ended, or did not answer within --rank_timeout "
                f"{rank_timeout:g} minutes; that rank's own message says why"
            ) from error
        raise
