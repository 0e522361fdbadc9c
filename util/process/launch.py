"""From parsed options to work: the world of ranks, logging on the main one, threads, and how a rank leaves."""

import argparse
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


def launch(args: argparse.Namespace, work: Callable[[argparse.Namespace, World], None]) -> None:
    """Call work(args, world) on --device with --threads; ranks other than the main one only say warnings.

    Ends with exit code `STOPPED` where the work stopped because it was asked to; under torchrun with 0, because it
    takes any other code for a failure and would start the ranks again.
    """
    with join_world(args.device, timedelta(minutes=args.rank_timeout)) as world:
        cli.setup_logging(logging.INFO if world.is_main else logging.WARNING)
        if args.threads:
            torch.set_num_threads(args.threads)
        keep_memory()
        try:
            told = record(_naming_the_rank) if UNDER_TORCHRUN in os.environ else _naming_the_rank
            told(args, work, world)
        except Stopped as stopped:
            logger.info("%s", stopped)
            sys.exit(0 if UNDER_TORCHRUN in os.environ else STOPPED)


def _naming_the_rank(args: argparse.Namespace, work: Callable[[argparse.Namespace, World], None], world: World) -> None:
    """On several ranks a failure says whose it is, so that those that only lost it are told from it. torchrun's
    summary begins with the first one (`record` tells it the message)."""
    try:
        work(args, world)
    except (ValueError, OSError) as error:
        if world.size > 1:
            kind = OSError if isinstance(error, OSError) else ValueError  # their heirs may take other arguments
            raise kind(f"rank {world.rank} of {world.size}: {error}") from error
        raise
    except RuntimeError as error:
        if world.size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise LostRank(
                f"rank {world.rank} of {world.size} stops: another rank ended, or did not answer within --rank_timeout "
                f"{args.rank_timeout:g} minutes; that rank's own message says why"
            ) from error
        raise
