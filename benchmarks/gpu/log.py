"""A log that prints and writes each line at once, runs sections that may fail, and keeps a time budget."""

import time
import traceback
from collections.abc import Callable
from pathlib import Path


class Log:
    """One file of results. No section starts that would end later than `minutes` after the log was created."""

    def __init__(self, path: Path | None, minutes: float) -> None:
        self.path, self.started, self.minutes = path, time.monotonic(), minutes
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, line: str = "") -> None:
        print(line, flush=True)  # noqa: T201
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds left."""
        return 60 * self.minutes - self.seconds

    def section(self, title: str, needs: float, run: Callable[[], object]) -> None:
        """Run one section if `needs` seconds are left. Exceptions are logged."""
        if self.left < needs:
            self(f"\n## {title}: left out, {self.left:.0f} s are left and it takes about {needs:.0f}")
            return
        self(f"\n## {title} (at {self.seconds:.0f} s)")
        self.attempt(title, run)

    def attempt(self, title: str, run: Callable[[], object]) -> None:
        try:
            run()
        except Exception:  # the next section may still work
            self(f"FAILED {title}\n{traceback.format_exc()[-3000:]}")
