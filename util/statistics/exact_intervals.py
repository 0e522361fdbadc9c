"""95% intervals of metrics that are exactly 0 or 1 in the sample.

For such a sample every bootstrap resample has the same value and the estimated standard error is 0, so that both
methods give a point for any number of subjects. These intervals contain the true values for which the sample lies
within 1.96 standard errors, with the standard error of the true value instead of the sample's.
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
    "A metric that is 0 or 1 in every resample has an interval that follows from the number of patients alone "
    "(Newcombe's for the AUC, also for DeLong; Wilson's for proportions): a sample without errors cannot tell how rare "
    "errors are."
)


def proportion_interval(value: float, n: int) -> Interval:
    """The interval of a proportion of 0 or 1 among n patients (Wilson 1927; method 3 of Newcombe, Statistics in
    Medicine 1998)."""
    return _up_to(value, n / (n + Z95**2))


def auc_interval(value: float, positives: int, negatives: int) -> Interval:
    """The interval of an AUC of 0 or 1 (method 5 of Newcombe, Statistics in Medicine 2006, part 2).

    The standard error is that of Hanley & McNeil (Radiology 1982) for two exponential distributions, with the mean of
    both class sizes in place of each.
    """
    others, pairs = (positives + negatives) / 2 - 1, positives * negatives

    def surplus(area: float) -> float:
        """((1 - area)^2 - 1.96^2 variance) times pairs / (1 - area): a decreasing function that is 0 at the bound."""
        return pairs * (1 - area) - Z95**2 * area * (1 + others * ((1 - area) / (2 - area) + area / (1 + area)))

    return _up_to(value, float(brentq(surplus, 0.0, 1.0)))  # pyright: ignore[reportArgumentType]


def sum_interval(weights: Sequence[float], values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of a weighted sum, from the values and intervals of its terms.

    Square-and-add, method 10 of Newcombe, Statistics in Medicine 1998, "difference between independent proportions".
    For paired terms it is wider than necessary.
    """
    total = sum(weight * value for weight, value in zip(weights, values))
    ends = [
        sorted((weight * (low - value), weight * (high - value)))
        for weight, value, (low, high) in zip(weights, values, intervals)
    ]
    return total - math.hypot(*(down for down, _ in ends)), total + math.hypot(*(up for _, up in ends))


def extreme_interval(metric: str, value: float, scores: Scores) -> Interval:
    """The interval of a metric that is 0 or 1. It counts patients, because subjects of one patient are not independent.

    Average precision is treated as a proportion of the positives (Boyd, Eng & Page, ECML 2013). F1 is 2J / (1 + J),
    where J is the proportion of correct predictions among the subjects that are positive or predicted to be, at least
    the positives. A Brier score or calibration error of 0 or 1 needs probabilities of 0 and 1, and is the proportion of
    wrong ones.
    """
    patients = scores.patients_S
    positives, negatives = (len(set(patients[scores.labels_S == label].tolist())) for label in (1, 0))
    return _EXTREMES[metric](value, positives, negatives, len(set(patients.tolist())))


def has_extremes(pooled: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether an interval needs EXTREME_NOTE beside it. pooled: {metric: {value, ...}} of results.json."""
    return any(entry["value"] in (0, 1) for entry in pooled.values())


def _up_to(value: float, low: float) -> Interval:
    """The interval from `low` to 1 for the value 1, and its mirror image for the value 0."""
    return (low, 1.0) if value == 1 else (0.0, 1 - low)


def _f1_interval(value: float, positives: int) -> Interval:
    low, high = (2 * bound / (1 + bound) for bound in proportion_interval(value, positives))
    return low, high


def _balanced_interval(value: float, positives: int, negatives: int) -> Interval:
    return sum_interval((0.5, 0.5), (value, value), [proportion_interval(value, n) for n in (positives, negatives)])


_EXTREMES: dict[str, Callable[[float, int, int, int], Interval]] = {  # (value, positives, negatives, all patients)
    "accuracy": lambda value, _, __, n: proportion_interval(value, n),
    "balanced_accuracy": lambda value, p, n, _: _balanced_interval(value, p, n),
    "f1": lambda value, p, _, __: _f1_interval(value, p),
    "auc": lambda value, p, n, _: auc_interval(value, p, n),
    "average_precision": lambda value, p, _, __: proportion_interval(value, p),
    "sensitivity": lambda value, p, _, __: proportion_interval(value, p),
    "specificity": lambda value, _, n, __: proportion_interval(value, n),
    "brier": lambda value, _, __, n: proportion_interval(value, n),
    "ece": lambda value, _, __, n: proportion_interval(value, n),
}
