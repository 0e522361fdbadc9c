"""Mutation testing of ops and of the statistics: do the tests of a file fail when a part of the file is changed?

python -m tests.robustness.mutation --minutes 30                                        all files of TARGETS
python -m tests.robustness.mutation --only util/statistics/delong.py:61                 the mutants of one line

The mutants are those of cosmic-ray (`pip install cosmic-ray==8.7.0`): first one of every place and kind of change,
drawn by --seed, then a second of each, and so on until the time is up. Each is tested in a process forked from one that
has imported PyTorch, SciPy and pytest but none of our modules: this saves the three seconds of those imports. The
changed source is compiled in place of the module; no file is written.
"""

import argparse
import ast
import contextlib
import gc
import heapq
import importlib
import importlib.machinery
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 12 * 2**30  # address space of the tests of one mutant
BROKEN = 70  # exit code of a forked process in which pytest itself failed
STATISTICS = (
    "bootstrap", "comparisons", "curves", "delong", "exact_intervals", "logistic_regression", "metrics", "scores",
)  # fmt: skip
TARGETS = {  # source file -> its test files, quick ones first
    "ops/arguments.py": ["tests/ops/test_arguments.py"],
    "ops/chunked/conv.py": ["tests/ops/chunked/test_conv.py"],
    "ops/chunked/scan.py": ["tests/ops/chunked/test_scan.py"],
    "ops/chunked/ssd.py": ["tests/ops/chunked/test_ssd.py"],
    "ops/chunked/views.py": ["tests/ops/chunked/test_views.py", "tests/ops/chunked/test_scan.py"],
    "ops/reference/scan.py": [
        "tests/ops/reference/test_scan.py", "tests/ops/chunked/test_conv.py", "tests/ops/chunked/test_scan.py",
    ],
    **{f"ops/reference/{name}.py": [f"tests/ops/reference/test_{name}.py"]
       for name in ("add_norm", "bimamba", "patches", "resample", "ssd")},
    **{f"util/statistics/{name}.py": [f"tests/util/statistics/test_{name}.py"] for name in STATISTICS},
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """source: the whole changed text of `path`. turn: from r to below r + 1 for the mutant r + 1 of a place."""

    path: str
    operator: str
    line: int
    source: str
    turn: float

    def __str__(self) -> str:
        """Place, operator, and the changed line before and after."""
        lines = zip((ROOT / self.path).read_text().splitlines(), self.source.splitlines())
        before, after = next(((old, new) for old, new in lines if old != new), ("", ""))
        return f"{self.path}:{self.line} {self.operator}: {before.strip()}  ->  {after.strip()}"


def mutants(path: str, draw: random.Random, line: str = "") -> Iterator[Mutant]:
    """The mutants of a file, or of one line of it, in the order of `turn`. Mutants whose syntax tree differs in
    annotations alone, or equals that of another mutant, are left out."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / path).read_text()
    nodes = list(ast_nodes(get_ast(source)))
    places = defaultdict(list)
    for name in operator_names():
        operator_class = get_operator(name)
        if operator_class.arguments():
            continue
        spans = (span for node in nodes for span in operator_class().mutation_positions(node))
        for occurrence, (begin, end) in enumerate(spans):
            if line in ("", str(begin[0])):
                places[begin, end, name.split("/")[-1].split("_")[0]].append((begin[0], name, occurrence))
    queues = [draw.sample(choices, len(choices)) for _, choices in sorted(places.items())]
    seen, turn = {_meaning(source)}, 0
    while queues := [queue for queue in queues if queue]:
        for position, queue in enumerate(draw.sample(queues, len(queues))):
            while queue:
                begin, name, occurrence = queue.pop()
                changed = mutate_code(source, get_operator(name)(), occurrence)
                with contextlib.suppress(SyntaxError):
                    if (meaning := _meaning(changed)) not in seen:
                        seen.add(meaning)
                        yield Mutant(path, name.split("/")[-1], begin, changed, turn + position / len(queues))
                        break
        turn += 1


def _meaning(source: str) -> str:
    """The syntax tree without annotations."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if getattr(node, field, None) is not None:
                setattr(node, field, ast.Constant(None))
    return ast.dump(tree)


class _MutantLoader(importlib.machinery.SourceFileLoader):
    """Finder and loader of the mutant's module."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.path.removesuffix(".py").replace("/", "."), str(ROOT / mutant.path))
        self.source = mutant.source

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> object:
        return compile(self.source, self.path, "exec")


def run_tests(tests: Sequence[str], mutant: Mutant | None, seconds: float, output: Path) -> int | None:
    """Exit code of pytest in a forked process, None where it was stopped after `seconds`."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
            handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 1)
            os.dup2(handle, 2)
            code = _pytest(tests, mutant)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _pytest(tests: Sequence[str], mutant: Mutant | None) -> int:
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutation", database=None, derandomize=True)
    hypothesis.settings.load_profile("mutation")
    if mutant is not None:
        sys.meta_path.insert(0, _MutantLoader(mutant))
    already = "ignore::pytest.PytestAssertRewriteWarning"  # this process has imported pytest's plugins
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-W", already, *tests]))


def import_libraries(tests: Sequence[str]) -> None:
    """Import what `tests` import from site-packages; another process collects them to find out."""
    listing = (
        "import json, sys, pytest; pytest.main(['--collect-only', '-qq', *sys.argv[2:]]);"
        "json.dump([n for n, m in sys.modules.items() if 'site-packages' in (getattr(m, '__file__', None) or '')],"
        "open(sys.argv[1], 'w'))"
    )
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run([sys.executable, "-c", listing, file.name, *tests], cwd=ROOT, check=True, capture_output=True)
        for name in json.loads(Path(file.name).read_text()):
            with contextlib.suppress(Exception):  # not a module of its own: the tests import it when they need it
                importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a forked process would visit, and so copy, all of this: 0.8 s instead of 0.1 s


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.robustness.mutation", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="no further mutant is tested after this time")
    parser.add_argument("--only", nargs="+", default=list(TARGETS), metavar="FILE[:LINE]", help="files, or lines")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the mutants")
    args = parser.parse_args(argv)
    for path in (word.partition(":")[0] for word in args.only):
        if path not in TARGETS:
            parser.error(f"{path}: no tests are known for it; add it to TARGETS in tests/robustness/mutation.py")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    os.chdir(ROOT)
    wanted = [(path, line) for path, _, line in (word.partition(":") for word in args.only)]
    series = [mutants(path, random.Random(f"{args.seed} {path}"), line) for path, line in wanted]
    import_libraries(sorted({test for path, _ in wanted for test in TARGETS[path]}))
    begun, limits, counts = time.monotonic(), {}, {path: Counter() for path, _ in wanted}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pytest.txt"
        for path in counts:
            before = time.monotonic()
            if code := run_tests(TARGETS[path], None, 600, output):
                raise RuntimeError(f"{path}: its tests end with {code} without a mutant:\n{output.read_text()[-3000:]}")
            limits[path] = 10 + 5 * (time.monotonic() - before)
        for mutant in heapq.merge(*series, key=lambda mutant: mutant.turn):
            if time.monotonic() - begun > 60 * args.minutes:
                break
            code = run_tests(TARGETS[mutant.path], mutant, limits[mutant.path], output)
            if code == BROKEN:
                raise RuntimeError(output.read_text()[-3000:])
            outcome = "survived" if code == 0 else "killed" if code is not None else "stopped"
            counts[mutant.path][outcome] += 1
            print(f"{outcome} {mutant}", flush=True)
    print(f"\n{(time.monotonic() - begun) / 60:.1f} minutes\n\n| file | mutants | killed | stopped | survived |")
    print("|---|---|---|---|---|")
    for path, found in sorted(counts.items()):
        print(f"| {path} | {found.total()} | {found['killed']} | {found['stopped']} | {found['survived']} |")


if __name__ == "__main__":
    main()
