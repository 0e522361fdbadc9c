"""Variance of the area under the ROC curve (AUC), and of the difference of two areas on the same subjects.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988. Repeats of a cross-validation are averaged inside the kernel, so that
the area remains a mean over pairs of subjects, to which the method applies.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from util.statistics.exact_intervals import Z95, auc_interval, sum_interval
from util.statistics.scores import Scores


@dataclass(frozen=True)
class Area:
    """AUC, standard error and 95% interval; NaN if not defined.

    The interval is normal on the scale of the log-odds (Pepe 2003): near an AUC of 1, a normal interval of the AUC
    itself has a much lower coverage than 95%, see benchmarks/bench_statistics.py. If all pairs are ordered correctly,
    or none, the estimated error is 0; the interval is then Newcombe's, from the class sizes alone
    (util/statistics/exact_intervals.py). If all probabilities are equal, the interval is the point 0.5.
    """

    auc: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class AreaDifference:
    """AUC of the first minus AUC of the second, with standard error, 95% interval and two-sided p."""

    difference: float
    error: float
    low: float
    high: float
    p: float


def ordered_pairs(labels_S: np.ndarray, probabilities_S: np.ndarray) -> np.ndarray:
    """(positives, negatives): 1 where the positive has the higher probability, 1/2 where equal, else 0."""
    difference_PN = probabilities_S[labels_S == 1][:, None] - probabilities_S[labels_S == 0][None, :]
    return (np.sign(difference_PN) + 1) / 2


def delong_interval(scores: Scores) -> Area:
    """The AUC with its interval, which is NaN if a class has fewer than two subjects, or if a patient has several
    subjects (which are not independent)."""
    if len(set(scores.labels_S.tolist())) < 2:
        return Area(*[math.nan] * 4)
    repeats, order_PN = len(scores.probabilities_RS), _order(scores)
    auc = float(1 + order_PN.mean() / repeats) / 2
    if not _is_applicable(scores):
        return Area(auc, *[math.nan] * 3)
    error = math.sqrt(_variance(order_PN)) / (2 * repeats)
    if error == 0:
        return Area(auc, error, *(auc_interval(auc, *order_PN.shape) if auc in (0, 1) else (auc, auc)))
    middle, half_width = math.log(auc / (1 - auc)), Z95 * error / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-bound)) for bound in (middle - half_width, middle + half_width))
    return Area(auc, error, low, high)


def delong_difference(a: Scores, b: Scores) -> AreaDifference:
    """The difference of two runs on the same subjects (see check_paired); NaN in the same cases as for delong_interval.

    If the error is 0, p is 1 for equal areas and NaN otherwise: a perfect run against a constant one has this error
    with any number of subjects, so that the test is not defined (R's pROC gives p = 0). The interval is then computed
    from the intervals of the two areas.
    """
    if not _is_applicable(a):
        return AreaDifference(*[math.nan] * 5)
    repeats_a, repeats_b = len(a.probabilities_RS), len(b.probabilities_RS)
    delta_PN = repeats_b * _order(a) - repeats_a * _order(b)  # its variance is var a + var b - 2 cov
    scale = 2 * repeats_a * repeats_b
    difference, error = float(delta_PN.mean()) / scale, math.sqrt(_variance(delta_PN)) / scale
    if error > 0:
        p = float(2 * norm.sf(abs(difference) / error))
        return AreaDifference(difference, error, difference - Z95 * error, difference + Z95 * error, p)
    p, areas = 1.0 if difference == 0 else math.nan, (delong_interval(a), delong_interval(b))
    if any(area.error for area in areas) or np.array_equal(a.probabilities_RS, b.probabilities_RS):
        return AreaDifference(difference, error, difference, difference, p)  # both order all pairs in the same way
    low, high = sum_interval((1, -1), [area.auc for area in areas], [(area.low, area.high) for area in areas])
    return AreaDifference(difference, error, low, high, p)


def _order(scores: Scores) -> np.ndarray:
    """(positives, negatives): the number of repeats with the positive above the negative minus that with it below.

    The values are integers, whose sums are exact, so that a variance of 0 has no rounding error.
    """
    return np.sum([2 * ordered_pairs(scores.labels_S, one_S) - 1 for one_S in scores.probabilities_RS], axis=0)


def _variance(kernel_PN: np.ndarray) -> float:
    """The variance of the kernel's mean, from the means over the pairs of each positive and of each negative."""
    P, N = kernel_PN.shape
    sums_P, sums_N = kernel_PN.sum(1), kernel_PN.sum(0)
    return float(sums_P.var(ddof=1) / N**2 / P + sums_N.var(ddof=1) / P**2 / N)


def _is_applicable(scores: Scores) -> bool:
    counts = np.bincount(scores.labels_S, minlength=2)
    return scores.is_independent and bool((counts >= 2).all())
