"""Two results in a low precision that differ: whose error against float64 is the smaller?"""

import statistics

import torch
from torch import Tensor


class Errors:
    def __init__(self) -> None:
        self._ratios: list[tuple[torch.dtype, float]] = []

    def add(self, precision: torch.dtype, ours: Tensor, theirs: Tensor, exact: Tensor) -> bool:
        """By the largest absolute error of both; whether a difference in half precision is theirs, not ours."""
        error, other = (float((x.double() - exact).abs().max()) for x in (ours, theirs))
        self._ratios.append((precision, error / other if other else 1.0 if not error else float("inf")))
        return precision != torch.float32 and error < other

    def notes(self, missed: int) -> list[str]:
        """What the report says of `missed` cases; nothing where none missed."""
        if not missed:
            return []
        ratios = [ratio for _, ratio in self._ratios]
        if not ratios:
            return [f"{missed} missed, none by a gradient."]
        half = sum(precision != torch.float32 for precision, _ in self._ratios)
        return [
            f"Of the {missed} that missed, {len(ratios)} did by a gradient, {half} of them in half precision. Against "
            f"float64 our error is the smaller in {sum(ratio < 1 for ratio in ratios)} of {len(ratios)}; the median "
            f"ratio of ours to theirs is {statistics.median(ratios):.2g}, the largest {max(ratios):.2g}."
        ]
