"""The selection of cases from the grid of a check."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Case = dict[str, Any]
QUICK = 12  # cases of a grid
QUICK_LENGTH = 64  # tokens


@dataclass(frozen=True)
class Options:
    """source: source tree of the peer. cases: number of cases of a grid, drawn with `seed`; None for all.

    longest: maximal length of a sequence. quick: a few cases of short sequences, which take seconds.
    """

    source: Path | None = None
    cases: int | None = None
    longest: int | None = None
    seed: int = 0
    quick: bool = False

    def chosen(
        self, grid: Mapping[str, Sequence[Any]], applies: Callable[[Case], bool] = lambda case: True
    ) -> list[Case]:
        """The applicable cases of the grid that these options select, in the order of the grid."""
        longest = min(self.longest or QUICK_LENGTH, QUICK_LENGTH) if self.quick else self.longest
        every = [case for values in itertools.product(*grid.values()) if applies(case := dict(zip(grid, values)))]
        short = [case for case in every if longest is None or case.get("seqlen", 0) <= longest]
        count = min(self.cases or QUICK, QUICK) if self.quick else self.cases
        if count is None or count >= len(short):
            return short
        drawn = random.Random(self.seed).sample(range(len(short)), count)
        return [short[index] for index in sorted(drawn)]
