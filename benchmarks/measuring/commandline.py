"""The options that all benchmarks share."""

import argparse
import logging
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.measuring.report import RESULTS, Report
from util import cli
from util.ranges import positive

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """The command line, and the report of the figures. quick: tiny sizes that only show that the program works."""

    args: argparse.Namespace
    report: Report

    @property
    def quick(self) -> bool:
        return self.args.quick

    def finish(self) -> None:
        logger.info("%s", self.report.write())


def parse(
    theme: str, title: str, argv: list[str] | None, extra: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """Parse --quick, --threads, --out and the options that `extra` adds."""
    parser = cli.Parser(
        prog=f"python -m benchmarks.{'' if theme == 'ceilings' else 'bench_'}{theme}", description=title
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test that the program works")
    parser.add_argument("--threads", type=positive, help="CPU threads; default: torch's choice")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results file")
    if extra is not None:
        extra(parser)
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    args.theme, args.title, args.command = theme, title, shlex.join([*parser.prog.split(), *words])
    return args


def begin(args: argparse.Namespace) -> Options:
    """Set up logging and threads, and start an empty report."""
    cli.setup_logging()
    if args.threads:
        torch.set_num_threads(args.threads)
    return Options(args, Report(args.theme, args.title, args.command, args.out))
