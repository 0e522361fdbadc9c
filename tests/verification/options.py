"""How much of a check's grid of cases runs."""

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
    """source: the peer's source tree. cases: how many of the grid, drawn by `seed`; None for all. longest: of the
    sequences in it. quick: a few cases of short sequences, seconds."""

    source: Path | None = None
    cases: int | None = None
    longest: int | None = None
    seed: int = 0
    quick: bool = False

    def chosen(
        self, grid: Mapping[str, Sequence[Any]], applies: Callable[[Case], bool] = lambda case: True
    ) -> list[Case]:
        """The cases of the grid that apply and that these options take, in the grid's order."""
        longest = min(self.longest or QUICK_LENGTH, QUICK_LENGTH) if self.quick else self.longest
        every = [case for values in itertools.product(*grid.values()) if applies(case := dict(zip(grid, values)))]
        short = [case for case in every if longest is None or case.get("seqlen", 0) <= longest]
        count = min(self.cases or QUICK, QUICK) if self.quick else self.cases
        if count is None or count >= len(short):
            return short
        drawn = random.Random(self.seed).sample(range(len(short)), count)
        return [short[index] for index in sorted(drawn)]
