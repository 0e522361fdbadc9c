"""From parsed options to work: the world of ranks, logging on the main one, threads."""

import argparse
import logging
from collections.abc import Callable

import torch

from util import cli
from util.distributed import World, join_world


def launch(args: argparse.Namespace, work: Callable[[argparse.Namespace, World], None]) -> None:
    """Call work(args, world) on --device with --threads; ranks other than the main one only say warnings."""
    with join_world(args.device) as world:
        cli.setup_logging(logging.INFO if world.is_main else logging.WARNING)
        if args.threads:
            torch.set_num_threads(args.threads)
        work(args, world)
