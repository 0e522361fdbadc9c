"""python -m tests.verification NAME... [--source TREE]: compare with independent implementations, called peers.

Exit status 1 if a case differs by more than the rounding error of the peer. A check without its peer is skipped, with
status 0.
"""

import argparse
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring.report import RESULTS, Report
from tests.verification.checks import CHECKS, Check
from tests.verification.options import Options
from tests.verification.tally import Skipped, Tally, quoted

ALL = "all"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.verification", description=__doc__)
    parser.add_argument(
        "names", nargs="+", choices=[*CHECKS, ALL], metavar="NAME", help=f"{', '.join(CHECKS)}, or {ALL}"
    )
    parser.add_argument("--source", type=Path, help="source tree of the peer, for a check that runs its code")
    parser.add_argument("--sources", type=Path, help="folder of the source trees of all peers, by repository")
    parser.add_argument(
        "--cases",
        type=int,
        help="most cases of each grid, drawn with --seed; 0: all; default: by check",
    )
    parser.add_argument("--longest", type=int, help="most tokens of a sequence; 0: no limit; default: by check")
    parser.add_argument("--seed", type=int, default=0, help="seed of drawn cases and random inputs")
    parser.add_argument("--quick", action="store_true", help="run a dozen short cases of each grid")
    help_report = "write verification_<hardware>_<date>.md into this folder (default: benchmarks/results)"
    parser.add_argument("--report", type=Path, nargs="?", const=RESULTS, metavar="FOLDER", help=help_report)
    given = parser.parse_args(words)
    if given.source is not None and (len(given.names) > 1 or given.names == [ALL]):
        parser.error("--source is the tree of one check; for several checks give --sources, the folder of all trees")
    for name in ("cases", "longest"):
        if (getattr(given, name) or 0) < 0:
            parser.error(f"--{name} must be 0 or more")
    return given


def options_of(check: Check, given: argparse.Namespace) -> Options:
    source = given.source
    if source is None and given.sources is not None and check.repository is not None:
        source = given.sources / check.repository.split("/")[1]
    cases = check.cases if given.cases is None else given.cases or None
    longest = check.longest if given.longest is None else given.longest or None
    return Options(source, cases, longest, given.seed, given.quick)


def main(words: Sequence[str] | None = None) -> int:
    given = parse(words)
    logging.disable(logging.INFO)
    names = list(CHECKS) if ALL in given.names else given.names
    rows: list[tuple[str, ...]] = []
    report = Report(
        "verification", "Comparisons with independent implementations", _command(words), given.report or RESULTS
    )
    report.table(["check", "source tree", "cases run", "held", "missed by rounding of the peer", "missed"], rows)
    failed = 0
    for name in names:
        check, options = CHECKS[name], options_of(CHECKS[name], given)
        try:
            tally = check.run(options)
        except Skipped as reason:
            print(f"{name}: skipped: {reason}")
            continue
        missed = len(tally.missed) - tally.excused
        failed += missed
        rows.append(
            (
                name,
                _revision(check, options),
                f"{tally.total:,}",
                f"{tally.held:,}",
                f"{tally.excused:,}",
                f"{missed:,}",
            )
        )
        report.section(name, f"{check.about}. {_extent(options)}")
        for line in _lines(tally):
            report.text(line)
        print(f"{name}: {tally.summary()} hold", *_lines(tally), sep="\n  ")
        if given.report:
            report.write()
    if given.report and rows:
        print(f"written: {report.write()}")
    return int(failed > 0)


def _lines(tally: Tally) -> list[str]:
    worst = ", ".join(f"{name} {value:.1e}" for name, value in tally.worst.items())
    missed = f"Missed: {quoted(tally.missed)}." if tally.missed else ""
    return [*tally.notes, *([f"Largest differences: {worst}."] if worst else []), *([missed] if missed else [])]


def _extent(options: Options) -> str:
    if options.quick:
        return "A dozen short cases of each grid."
    drawn = (
        f"{options.cases:,} cases of each grid drawn by seed {options.seed}"
        if options.cases
        else "All cases of its grid"
    )
    return drawn + (f" with at most {options.longest} tokens." if options.longest else ".")


def _revision(check: Check, options: Options) -> str:
    """The repository and its commit; the commit is unknown if the tree is not a clone."""
    if check.repository is None:
        return ""
    command = ["git", "-C", str(options.source), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{check.repository} {done.stdout.strip() or 'of unknown revision'}"


def _command(words: Sequence[str] | None) -> str:
    return " ".join(["python -m tests.verification", *(sys.argv[1:] if words is None else words)])


if __name__ == "__main__":
    sys.exit(main())
