"""An integral along the path from the empty volume to a volume, refined until it is complete.

The patch embedding's LayerNorm nearly removes the scale of its input, so that the score changes mostly where the path
is close to the empty volume: equal steps miss that part. With alpha = u^POWER the nodes crowd there.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
POWER = 5
TOLERANCE = 0.02  # of the rise that the parts may miss
SMALLEST_RISE = 0.1  # log-odds; a smaller rise counts as this one, so that rounding alone is not refined
DOUBLINGS = 4


@dataclass(frozen=True)
class Completeness:
    """How far the parts of one volume are from adding up to what they divide."""

    gap: float
    """|sum of the parts - rise| / max(|rise|, SMALLEST_RISE)."""
    steps: int
    """Gradients that were computed."""

    @property
    def is_complete(self) -> bool:
        return self.gap <= TOLERANCE

    def __str__(self) -> str:
        return f"parts miss {self.gap:.1%} of the log-odds' rise ({self.steps} steps)"

    def warn(self, whose: str) -> None:
        """Log a warning where the parts are not complete."""
        if not self.is_complete:
            logger.warning(
                "%s: integrated gradients: %s, more than %.0f%%: do not trust this map, or raise --steps",
                whose, self, 100 * TOLERANCE,
            )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """For a JSON file."""
        return {**asdict(self), "is_complete": self.is_complete}


def path_integral(
    weighted_slopes: Callable[[Tensor, Tensor], Tensor], rise: float, steps: int
) -> tuple[Tensor, Completeness]:
    """The parts of `rise`, and how well they add up to it.

    weighted_slopes(alphas (S,), weights (S,)) -> the sum over path points of weight times the parts' slopes. The rule
    is the trapezoid in u with alpha = u^5 and weights 5 u^4: a doubling of the steps reuses all that was computed. They
    are doubled at most DOUBLINGS times while the parts miss more than TOLERANCE of the rise. ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"--steps {steps}: integrated gradients need at least 1")
    limit = steps * 2**DOUBLINGS
    parts = weighted_slopes(*_nodes(torch.arange(1, steps + 1), steps))
    while True:
        gap = abs(parts.double().sum().item() - rise) / max(abs(rise), SMALLEST_RISE)
        found = Completeness(gap, steps)
        if found.is_complete or steps >= limit:
            return parts, found
        steps *= 2
        parts = parts / 2 + weighted_slopes(*_nodes(torch.arange(1, steps, 2), steps))


def _nodes(numbers: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Path points (alphas, weights), each (S,), of some of the numbers 1 to steps; number 0 has weight 0."""
    u = numbers / steps
    ends = torch.where(numbers == steps, 0.5, 1.0)
    return u**POWER, ends * POWER * u ** (POWER - 1) / steps
