"""Repeated timings of a function."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter


@dataclass(frozen=True)
class Timing:
    """Seconds of every repetition, warm-up excluded."""

    seconds: Sequence[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.seconds)

    @property
    def lowest(self) -> float:
        return min(self.seconds)

    def __str__(self) -> str:
        """Median and range, such as `0.41 s (0.40-0.45, n=5)`."""
        unit, factor = ("s", 1) if self.median >= 1 else ("ms", 1000)
        median, low, high = (f"{factor * x:.3g}" for x in (self.median, self.lowest, max(self.seconds)))
        return f"{median} {unit} ({low}-{high}, n={len(self.seconds)})"


Statistic = Callable[[Timing], float]
mean: Statistic = attrgetter("mean")
lowest: Statistic = attrgetter("lowest")


def measure(
    run: Callable[[], object],
    *,
    repeats: int = 5,
    warmup: int = 1,
    budget: float = 20.0,
    between: Callable[[], object] = lambda: None,
) -> Timing:
    """Time `run` up to `repeats` times after `warmup` calls, and at least once.

    No repetition starts after `budget` seconds. `between` is called after each repetition and not timed.
    """
    for _ in range(warmup):
        run()
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and sum(seconds) < budget):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
        between()
    return Timing(tuple(seconds))
