"""Run the CPU kernels under AddressSanitizer and UndefinedBehaviorSanitizer: a grid of shapes, then the fuzz of ops.

python -m tests.robustness.sanitize --minutes 2

The kernels are compiled with both sanitizers and with the assertions of their entry points, into the usual cache under
a name of their own. The first finding ends the process, with the place in the source; the exit status is then not 0.
"""

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path

from ops.cpu import build
from util import cli

FLAGS = (
    "-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-fno-math-errno", "-fno-omit-frame-pointer", "-DMAMBA_MAE_DEBUG",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
)  # fmt: skip
INSIDE = "MAMBA_MAE_SANITIZED"
SETTINGS = {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1", INSIDE: "1"}
BATCHES, CHANNELS, LENGTHS, STATES = (1, 2), (1, 15, 16, 17, 33), (1, 15, 16, 17, 33), (1, 4, 9)


def libraries() -> list[str]:
    """The sanitizers' libraries, which must be loaded before all others; empty if this compiler has none."""
    compiler = build._compiler()
    names = ("libasan.so", "libubsan.so")
    found = [build._run([*compiler, f"-print-file-name={name}"]).stdout.strip() for name in names]
    return found if all(Path(path).is_absolute() for path in found) else []


def run_inside(arguments: list[str], seconds: float) -> int:
    """The exit status of `python arguments` with the sanitizers loaded."""
    environment = {**os.environ, **SETTINGS, "LD_PRELOAD": ":".join(libraries())}
    return subprocess.run([sys.executable, *arguments], env=environment, check=False, timeout=seconds).returncode


def walk_grid() -> int:
    """The number of calls, forward and backward, of the grid of shapes."""
    from tests.robustness.fuzz_ops import TARGETS, attempt_of, grid_arguments

    calls = 0
    for sizes in itertools.product(BATCHES, CHANNELS, LENGTHS, STATES):
        for target in TARGETS:
            wrong = attempt_of(target, grid_arguments(target, calls, sizes), gradients=True)[1]
            assert wrong is None, f"{target.function.__name__} {sizes}: {wrong}"
            calls += 1
    return calls


def main(argv: list[str] | None = None) -> int:
    """0, or the exit status of the process that a sanitizer ended."""
    parser = cli.Parser(prog="python -m tests.robustness.sanitize", description="Run the CPU kernels under sanitizers.")
    parser.add_argument("--minutes", type=float, default=2.0, help="time of the fuzz after the grid")
    args: argparse.Namespace = parser.parse_args(argv)
    if not 0 < args.minutes < 1e6:
        parser.error(f"--minutes {args.minutes:g}: give more than 0, in minutes")
    if INSIDE not in os.environ:
        if not libraries():
            parser.error("this compiler has no libasan and libubsan: install them, or set CXX to a GCC that has them")
        return run_inside(["-m", "tests.robustness.sanitize", *(sys.argv[1:] if argv is None else argv)], 1e6)
    build.FLAGS = FLAGS
    from ops.cpu import library
    from tests.robustness import fuzz_ops

    problem = library.problem()
    assert problem is None, problem
    print(f"grid of shapes: {walk_grid()} calls without a finding", flush=True)
    return fuzz_ops.main(["--minutes", str(args.minutes)])


if __name__ == "__main__":
    sys.exit(main())
