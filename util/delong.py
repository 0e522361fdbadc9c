"""Variance of the area under the ROC curve, and of the difference of two on the same subjects.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988. Repeats of a cross-validation are averaged inside the kernel, which
keeps the area a mean over pairs of subjects and the method valid for it.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from util.scores import Scores

Z95 = float(norm.ppf(0.975))


@dataclass(frozen=True)
class Area:
    """AUC, standard error and 95% interval; nan where not defined.

    The interval is normal on the scale of the log-odds (Pepe 2003): near 1 the plain one covers far less than it says,
    see benchmarks/bench_statistics.py. With every pair in order the error is estimated as 0, the interval as a point.
    """

    auc: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class AreaDifference:
    """AUC of the first minus that of the second, its standard error, 95% interval and two-sided p."""

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
    """Not defined where a class has fewer than two subjects, or patients have several (they are not independent)."""
    if len(set(scores.labels_S.tolist())) < 2:
        return Area(*[math.nan] * 4)
    pairs_PN = _mean_pairs(scores)
    auc = float(pairs_PN.mean())
    error = math.sqrt(_variance(pairs_PN)) if _is_applicable(scores) else math.nan
    if not error > 0:  # 0 or nan
        return Area(auc, error, auc + error, auc + error)
    middle, reach = math.log(auc / (1 - auc)), Z95 * error / (auc * (1 - auc))
    low, high = (1 / (1 + math.exp(-bound)) for bound in (middle - reach, middle + reach))
    return Area(auc, error, low, high)


def delong_difference(a: Scores, b: Scores) -> AreaDifference:
    """Of two runs on the same subjects, see check_paired. nan as for the interval.

    Where the error is 0, p is 1 for equal areas, else nan: a perfect run against a constant one has no estimate.
    """
    if not _is_applicable(a):
        return AreaDifference(*[math.nan] * 5)
    of_a, of_b = _mean_pairs(a), _mean_pairs(b)
    difference = float(of_a.mean() - of_b.mean())
    delta_PN = of_a - of_b  # the kernel of the difference: its variance is var a + var b - 2 cov
    error = math.sqrt(_variance(delta_PN))
    without_error = 1.0 if difference == 0 else math.nan
    p = float(2 * norm.sf(abs(difference) / error)) if error else without_error
    return AreaDifference(difference, error, difference - Z95 * error, difference + Z95 * error, p)


def _mean_pairs(scores: Scores) -> np.ndarray:
    return np.mean([ordered_pairs(scores.labels_S, one_S) for one_S in scores.probabilities_RS], axis=0)


def _variance(kernel_PN: np.ndarray) -> float:
    """Of the kernel's mean, from the means over each positive's and each negative's pairs."""
    P, N = kernel_PN.shape
    return float(kernel_PN.mean(1).var(ddof=1) / P + kernel_PN.mean(0).var(ddof=1) / N)


def _is_applicable(scores: Scores) -> bool:
    counts = np.bincount(scores.labels_S, minlength=2)
    return scores.is_independent and bool((counts >= 2).all())
