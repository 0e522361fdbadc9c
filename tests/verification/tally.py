"""What a check found: cases that held, cases that did not, and the largest differences seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Pairs = Mapping[str, tuple[Any, Any]]


class Skipped(Exception):
    """A check cannot run here; the message says what is absent."""


@dataclass
class Tally:
    """held and missed count cases; excused: those missed by the peer's error, not ours; notes: for the report.

    worst: the largest difference by what was compared, those of a kind together ("gradient of A", "gradient of B"), as
    a share of the largest value where that is the tolerance's measure.
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
        """Count a case whose every pair (ours, theirs) agrees: |ours - theirs| <= atol + rtol |theirs| +
        of_largest max |theirs|. nan meets nan, and an infinity itself. kind: whose worst difference it is."""
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
