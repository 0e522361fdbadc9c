"""Fuzz the readers of files for some CPU minutes: manifest, label sheet, config.ini, NIfTI, checkpoint, volume.

python -m tests.robustness.fuzz --minutes 10          writes benchmarks/results/fuzz_<hardware>_<date>.md

A reader must read a file or raise a ValueError that names it. Anything else is a bug: the exit status is 1 and the
report shows the error. Files are drawn by hypothesis and, if it is installed, by atheris, which is guided by coverage.
"""

import argparse
import itertools
import logging
import resource
import shlex
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.measuring.report import RESULTS, Report
from tests.robustness.fuzz_coverage import AVAILABLE, children_seconds, guided
from tests.robustness.fuzz_inputs import TARGETS, File, Target, outcome
from util import cli

logger = logging.getLogger(__name__)
BATCH = 100  # examples between two checks of the time
MAX_BYTES = 2 * 2**30
"""Limit of the address space, in addition to that of the imports. A reader that needs more trusts the sizes in a file
without checking them."""


def fuzz(target: Target, *, seconds: float, seed: int, most_crashes: int = 5) -> tuple[Counter[str], list[str]]:
    """Counts of "read", "refused" and "crashed" within `seconds` of processor time, and descriptions of the crashes."""
    counts: Counter[str] = Counter()
    crashes: list[str] = []
    deadline = time.process_time() + seconds
    while time.process_time() < deadline and len(crashes) < most_crashes:
        seed += 1
        try:
            _run(target, counts, seed, BATCH)
        except Exception as error:  # every type of error is a finding
            counts["crashed"] += 1
            crashes.append(f"{target.name}, seed {seed}: {type(error).__name__}: {str(error)[:300]}")
            logger.exception("%s", crashes[-1])
    return counts, crashes


def _run(target: Target, counts: Counter[str], number: int, examples: int) -> None:
    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(target.files)
    def attempt(file: File) -> None:
        counts[outcome(target, file)] += 1

    attempt()


ENGINES = {"hypothesis": fuzz, "atheris": guided}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = cli.Parser(prog="python -m tests.robustness.fuzz", description="Fuzz the readers of files.")
    parser.add_argument("--minutes", type=float, default=10.0, help="processor time, divided equally among the readers")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=ENGINES,
        default=[name for name in ENGINES if name != "atheris" or AVAILABLE],
        help="generators of files; they share the time; default: the installed ones",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first example")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="folder of the report")
    args = parser.parse_args(argv)
    if not args.minutes > 0:
        raise ValueError(f"--minutes {args.minutes:g}: give more than 0")
    if "atheris" in args.engines and not AVAILABLE:
        raise ValueError("--engines atheris: it is not installed; pip install -r requirements-dev.txt, or leave it out")
    return args


def main(argv: list[str] | None = None) -> int:
    """Exit status 0: no crash. 1: the report lists the crashes."""
    args = parse(argv)
    cli.setup_logging()
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)  # it logs every invalid header
    logger.setLevel(logging.INFO)
    command = f"python -m tests.robustness.fuzz {shlex.join(sys.argv[1:] if argv is None else argv)}".strip()
    report = Report("fuzz", "Readers of damaged and malicious files", command, args.out)
    report.text(f"Seed {args.seed}. A crash is any error other than a ValueError that names the file.")
    rows: list[tuple] = []
    report.table(("reader", "engine", "files tried", "read", "refused", "crashed", "seconds"), rows)
    found: list[str] = []
    engines = list(dict.fromkeys(args.engines))
    share = 60 * args.minutes / len(TARGETS) / len(engines)
    for target, engine in itertools.product(TARGETS, engines):
        started = time.process_time() + children_seconds()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of libraries about invalid files
            counts, crashes = ENGINES[engine](target, seconds=share, seed=args.seed)
        spent = time.process_time() + children_seconds() - started
        seconds = min(spent, share)  # atheris needs additional time to instrument the code
        kinds = [counts[kind] for kind in ("read", "refused", "crashed")]
        rows.append((target.name, engine, counts.total(), *kinds, f"{seconds:.0f}"))
        found += crashes
        logger.info("%s, %s: %s", target.name, engine, dict(counts))
        report.write()
    tried, minutes = sum(row[2] for row in rows), sum(float(row[-1]) for row in rows) / 60
    report.text(f"{tried} files in {minutes:.1f} CPU-minutes, {len(found)} crashes.")
    for crash in found:
        report.text(f"- `{crash}`")
    logger.info("report: %s", report.write())
    return 1 if found else 0


def limit_memory() -> None:
    """Limit the memory to MAX_BYTES more than in use now. A MemoryError counts as a crash. Linux only."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        most = int(statm.read_text().split()[0]) * resource.getpagesize() + MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    limit_memory()
    cli.run(main)
