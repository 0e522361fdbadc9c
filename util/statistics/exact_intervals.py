"""95% intervals where a sample holds no error at all, or nothing right: there its own spread tells nothing.

A bootstrap draws the same value again and again, and an estimated standard error is 0, so both give a point however few
subjects there are. These intervals hold the values under which such a sample lies within 1.96 of their own standard
errors, whatever error the sample shows.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy.optimize import brentq
from scipy.stats import norm

from util.statistics.scores import Scores

Z95 = float(norm.ppf(0.975))
Interval = tuple[float, float]
EXTREME_NOTE = (
    "A metric that is 0 or 1 in every resample has the interval that the number of patients alone allows (of the AUC "
    "Newcombe's, also after DeLong; of shares Wilson's): a sample without errors cannot tell how rare errors are."
)


def share_interval(value: float, n: int) -> Interval:
    """Of a share of n patients that is 0 or 1 (Wilson 1927; method 3 of Newcombe, Statistics in Medicine 1998)."""
    return _up_to(value, n / (n + Z95**2))


def auc_interval(value: float, positives: int, negatives: int) -> Interval:
    """Of an AUC of 0 or 1 (method 5 of Newcombe, Statistics in Medicine 2006, part 2).

    The standard error is that of Hanley & McNeil (Radiology 1982) for two exponential distributions, with the mean of
    both class sizes in the place of each.
    """
    others, pairs = (positives + negatives) / 2 - 1, positives * negatives

    def surplus(area: float) -> float:
        """(1 - area)^2 minus 1.96^2 variances, times pairs / (1 - area): 0 at the bound, and falling."""
        return pairs * (1 - area) - Z95**2 * area * (1 + others * ((1 - area) / (2 - area) + area / (1 + area)))

    return _up_to(value, float(brentq(surplus, 0.0, 1.0)))  # pyright: ignore[reportArgumentType]


def sum_interval(weights: Sequence[float], values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Of a weighted sum, from its terms and their intervals: square-and-add (method 10 of Newcombe, Statistics in
    Medicine 1998, "difference between independent proportions"). Of paired terms it is wider than need be."""
    total = sum(weight * value for weight, value in zip(weights, values))
    ends = [
        sorted((weight * (low - value), weight * (high - value)))
        for weight, value, (low, high) in zip(weights, values, intervals)
    ]
    return total - math.hypot(*(down for down, _ in ends)), total + math.hypot(*(up for _, up in ends))


def extreme_interval(metric: str, value: float, scores: Scores) -> Interval:
    """Of a metric that is 0 or 1. Patients count, not subjects: those of one patient are not independent.

    Average precision counts as a share of the positives (Boyd, Eng & Page, ECML 2013). F1 is 2J / (1 + J) of the share
    J of right calls among those who are positive or called so, who are at least the positives. A Brier score or
    calibration error of 0 or 1 belongs to probabilities of 0 and 1, and is the share of wrong ones.
    """
    patients = scores.patients_S
    positives, negatives = (len(set(patients[scores.labels_S == label].tolist())) for label in (1, 0))
    return _EXTREMES[metric](value, positives, negatives, len(set(patients.tolist())))


def has_extremes(pooled: Mapping[str, Mapping[str, Any]]) -> bool:
    """pooled: {metric: {value, ...}} of results.json. Whether an interval needs EXTREME_NOTE beside it."""
    return any(shown["value"] in (0, 1) for shown in pooled.values())


def _up_to(value: float, low: float) -> Interval:
    """The interval of 1 that begins at `low`, or of 0, its mirror image."""
    return (low, 1.0) if value == 1 else (0.0, 1 - low)


def _f1_interval(value: float, positives: int) -> Interval:
    low, high = (2 * share / (1 + share) for share in share_interval(value, positives))
    return low, high


def _balanced_interval(value: float, positives: int, negatives: int) -> Interval:
    return sum_interval((0.5, 0.5), (value, value), [share_interval(value, n) for n in (positives, negatives)])


_EXTREMES: dict[str, Callable[[float, int, int, int], Interval]] = {  # of value, positives, negatives, everyone
    "accuracy": lambda value, _, __, n: share_interval(value, n),
    "balanced_accuracy": lambda value, p, n, _: _balanced_interval(value, p, n),
    "f1": lambda value, p, _, __: _f1_interval(value, p),
    "auc": lambda value, p, n, _: auc_interval(value, p, n),
    "average_precision": lambda value, p, _, __: share_interval(value, p),
    "sensitivity": lambda value, p, _, __: share_interval(value, p),
    "specificity": lambda value, _, n, __: share_interval(value, n),
    "brier": lambda value, _, __, n: share_interval(value, n),
    "ece": lambda value, _, __, n: share_interval(value, n),
}
