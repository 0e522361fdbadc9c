"""`make quick`: the tests of what changed, nearest first, within a budget of seconds.

Changed are the files that differ from the last commit, or, where nothing does, those of the last commit. Their own test
files come first, then those of the modules that import them, and so on outwards.
"""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_architecture import IMPORTS, MODULES, ROOT

ALWAYS = ["tests/test_architecture.py"]


def changed_files() -> list[str]:
    """Paths relative to the repository."""
    status = _git("status", "--porcelain", "--untracked-files=all", "--no-renames")
    return [line[3:] for line in status] or _git("diff", "--name-only", "HEAD~1", "HEAD")


def files_to_test(changed: list[str]) -> list[str]:
    """Test files to run, in order: changed ones, those of changed modules, then of their importers by distance."""
    wanted = [name for name in changed if Path(name).match("tests/**/test_*.py") and (ROOT / name).exists()]
    names = {str(path.relative_to(ROOT)): module for module, path in MODULES.items()}
    ring = {names[name] for name in changed if name in names}
    seen: set[str] = set()
    while ring:
        wanted += [test for module in sorted(ring) if (test := _test_of(MODULES[module]))]
        seen |= ring
        ring = {module for module, reached in IMPORTS.items() if reached & ring} - seen
    return list(dict.fromkeys([*wanted, *ALWAYS]))


def _test_of(source: Path) -> str | None:
    home = source.relative_to(ROOT).parent
    path = ROOT / "tests" / (home if home.parts else "programs") / f"test_{source.name}"
    return str(path.relative_to(ROOT)) if path.exists() else None


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Budget:
    """Starts no further test once the budget is spent, and says how many were left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.left = seconds, time.monotonic(), 0
        self.is_spent = False

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.left = len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.left -= report.when == "teardown"

    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        if time.monotonic() - self.start > self.seconds:
            self.is_spent = True
            item.session.shouldstop = f"budget of {self.seconds:.0f} s spent, {self.left} tests left: run `make test`"


def run_within(budget: Budget, arguments: list[str]) -> int:
    """pytest's exit code; 0 where only the budget ended the run."""
    code = pytest.main(arguments, plugins=[budget])
    return 0 if code == pytest.ExitCode.INTERRUPTED and budget.is_spent else int(code)


def main(seconds: float) -> int:
    return run_within(Budget(seconds), ["-x", "--durations=5", *files_to_test(changed_files())])


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
