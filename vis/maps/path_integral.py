"""Numerical integration along the path from the empty volume to a volume, for integrated gradients.

The LayerNorm of the patch embedding nearly removes the scale of its input. The score therefore changes mostly near the
start of the path, at the empty volume, and equal steps miss that part. With alpha = u^POWER more nodes lie there.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
POWER = 5
TOLERANCE = 0.02  # largest completeness gap that is accepted
SMALLEST_DIFFERENCE = (
    0.1  # log-odds; smallest denominator of the gap, so that rounding errors do not trigger refinement
)
DOUBLINGS = 4  # of the number of steps, at most


@dataclass(frozen=True)
class Completeness:
    """How closely the attributions of one volume add up to the difference of the log-odds (completeness axiom)."""

    gap: float
    """|sum of attributions - difference| / max(|difference|, SMALLEST_DIFFERENCE)."""
    steps: int
    """Number of gradients that were computed."""

    @property
    def is_complete(self) -> bool:
        return self.gap <= TOLERANCE

    def __str__(self) -> str:
        text = f"completeness gap {self.gap:.1%} ({self.steps} steps)"
        return text if self.is_complete else f"{text}, not reliable"

    def warn(self, subject: str) -> None:
        """Log a warning if the gap exceeds the tolerance."""
        if not self.is_complete:
            logger.warning(
                "%s: integrated gradients: completeness gap %.1f%% (%d steps), above %.0f%%: this map is not reliable; "
                "raise --steps", subject, 100 * self.gap, self.steps, 100 * TOLERANCE,
            )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """The fields for a JSON file."""
        return {**asdict(self), "is_complete": self.is_complete}


def path_integral(
    weighted_slopes: Callable[[Tensor, Tensor], Tensor], difference: float, steps: int
) -> tuple[Tensor, Completeness]:
    """The attributions, whose sum approximates `difference`, and their completeness.

    weighted_slopes(alphas (S,), weights (S,)) -> sum over path points of weight times slope. The trapezoidal rule is
    applied in u, with alpha = u^5 and weights 5 u^4, so that doubling the steps reuses all computed gradients. The
    steps are doubled at most DOUBLINGS times, while the gap exceeds TOLERANCE. ValueError for steps < 1.
    """
    if steps < 1:
        raise ValueError(f"--steps {steps}: integrated gradients need at least 1")
    limit = steps * 2**DOUBLINGS
    parts = weighted_slopes(*_nodes(torch.arange(1, steps + 1), steps))
    while True:
        gap = abs(parts.double().sum().item() - difference) / max(abs(difference), SMALLEST_DIFFERENCE)
        completeness = Completeness(gap, steps)
        if completeness.is_complete or steps >= limit:
            return parts, completeness
        steps *= 2
        parts = parts / 2 + weighted_slopes(*_nodes(torch.arange(1, steps, 2), steps))


def _nodes(numbers: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Path points (alphas, weights), each (S,), for node numbers from 1 to `steps`. Node 0 has weight 0."""
    u = numbers / steps
    ends = torch.where(numbers == steps, 0.5, 1.0)
    return u**POWER, ends * POWER * u ** (POWER - 1) / steps
