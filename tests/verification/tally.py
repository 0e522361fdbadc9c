"""The result of a check: cases that hold, cases that differ, and the largest differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Pairs = Mapping[str, tuple[Any, Any]]


class Skipped(Exception):
    """A check cannot run; the message names what is missing."""


@dataclass
class Tally:
    """held, missed: cases. excused: number of missed cases due to the error of the peer. notes: for the report.

    worst: the largest difference by compared quantity. Quantities of a kind ("gradient of A", "gradient of B") are
    combined. The difference is relative to the largest value if the tolerance is.
    """

    held: int = 0
    missed: list[str] = field(default_factory=list)
    excused: int = 0
    worst: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.held + len(self.missed)

    def count(self, case: str, holds: bool) -> None:
        if holds:
            self.held += 1
        else:
            self.missed.append(case)

    def near(
        self, case: str, pairs: Pairs, *, rtol: float = 0.0, atol: float = 0.0, of_largest: float = 0.0, kind: str = ""
    ) -> None:
        """Count a case. It holds if all pairs (ours, theirs) agree:

        |ours - theirs| <= atol + rtol |theirs| + of_largest max |theirs|. NaN equals NaN, and infinity equals itself.
        kind: prefix of the names in `worst`.
        """
        tolerances = rtol, atol, of_largest
        held = [self._agrees(f"{kind} {name}".strip(), *pair, *tolerances) for name, pair in pairs.items()]
        self.count(case, all(held))

    def summary(self) -> str:
        return f"{self.held:,} of {self.total:,}"

    def _agrees(self, name: str, ours: Any, theirs: Any, rtol: float, atol: float, of_largest: float) -> bool:
        a, b = _values(ours), _values(theirs)
        if a.shape != b.shape:
            return False
        size = np.where(np.isfinite(b), np.abs(b), 0)
        with np.errstate(invalid="ignore"):
            gap = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0, np.abs(a - b))
        largest = size.max(initial=0.0)
        shown = gap.max(initial=0.0) / largest if of_largest and largest else gap.max(initial=0.0)
        group = name.partition(" of ")[0]
        self.worst[group] = max(self.worst.get(group, 0.0), float(shown))
        return bool((gap <= atol + rtol * size + of_largest * largest).all())


def _values(x: Any) -> np.ndarray:
    return x.detach().double().cpu().numpy() if isinstance(x, torch.Tensor) else np.asarray(x, dtype=np.float64)


def quoted(cases: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(cases) - shown} more" if len(cases) > shown else ""
    return "; ".join(cases[:shown]) + more
