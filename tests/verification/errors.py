"""Comparison of two differing results of low precision: which has the smaller error relative to float64?"""

import statistics

import torch
from torch import Tensor


class Errors:
    """Collects the ratios of our error to that of the peer."""

    def __init__(self) -> None:
        self._ratios: list[tuple[torch.dtype, float]] = []

    def add(self, precision: torch.dtype, ours: Tensor, theirs: Tensor, exact: Tensor) -> bool:
        """Add a pair. Returns whether the precision is half and our largest absolute error is smaller than theirs."""
        error, other = (float((x.double() - exact).abs().max()) for x in (ours, theirs))
        self._ratios.append((precision, error / other if other else 1.0 if not error else float("inf")))
        return precision != torch.float32 and error < other

    def notes(self, missed: int) -> list[str]:
        """Sentences of the report on `missed` cases. Empty if none missed."""
        if not missed:
            return []
        ratios = [ratio for _, ratio in self._ratios]
        if not ratios:
            return [f"{missed} cases missed, none because of a gradient."]
        half = sum(precision != torch.float32 for precision, _ in self._ratios)
        return [
            f"Of the {missed} missed cases, {len(ratios)} missed because of a gradient, {half} of them in half "
            f"precision. Relative to float64, our error is the smaller one in {sum(ratio < 1 for ratio in ratios)} of "
            f"{len(ratios)} cases. The median ratio of our error to theirs is {statistics.median(ratios):.2g}, the "
            f"largest {max(ratios):.2g}."
        ]
