"""Paired tests of two runs on the same subjects, and a test of one run against chance."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, rankdata
from scipy.stats import t as student_t

from util.statistics.bootstrap import RESAMPLES, bootstrap_differences, point_metrics
from util.statistics.delong import delong_difference
from util.statistics.metrics import METRICS, classification_metrics
from util.statistics.scores import Scores

PERMUTATIONS = 10_000
ROUNDING = 1e-12  # differences of metrics, which lie between 0 and 1, are exact to this


@dataclass(frozen=True)
class Mcnemar:
    """Numbers of subjects that only the first run and only the second run classifies correctly; exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(is_right_in_a_S: np.ndarray, is_right_in_b_S: np.ndarray) -> Mcnemar:
    """McNemar's exact test of whether two runs are equally often the correct one where they disagree. p = 1 if they
    never disagree."""
    only_a = int((is_right_in_a_S & ~is_right_in_b_S).sum())
    only_b = int((is_right_in_b_S & ~is_right_in_a_S).sum())
    p = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return Mcnemar(only_a, only_b, p)


@dataclass(frozen=True)
class FoldTest:
    """The mean difference over folds with its t, degrees of freedom and two-sided p."""

    mean: float
    t: float
    df: int
    p: float


def corrected_t_test(differences_F: Sequence[float], test_share: float) -> FoldTest:
    """Corrected resampled t-test over the F folds of a (repeated) cross-validation.

    Nadeau & Bengio 2003, Bouckaert & Frank 2004: training parts overlap, so that the variance of the mean is (1 / F +
    n_test / n_train) times the variance over folds. test_share: n_test / n_train, which is 1 / (k - 1) with k folds.
    Folds without a value (NaN) are left out; with fewer than two values the result is NaN. If all values are equal up
    to rounding, t is NaN, and p is 1 if they are 0, else NaN.
    """
    values = np.asarray(differences_F, dtype=float)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return FoldTest(float(values.mean()) if len(values) else math.nan, math.nan, max(len(values) - 1, 0), math.nan)
    mean, df = float(values.mean()), len(values) - 1
    error = math.sqrt((1 / len(values) + test_share) * values.var(ddof=1))
    if error <= ROUNDING:
        return FoldTest(mean, math.nan, df, 1.0 if abs(mean) <= ROUNDING else math.nan)
    return FoldTest(mean, mean / error, df, float(2 * student_t.sf(abs(mean) / error, df)))


def permutation_p(scores: Scores, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """One-sided p of the pooled AUC (mean over repeats) against permuted labels; NaN if there is one class only.

    Labels are permuted among subjects and predictions are kept: models are not trained again. The smallest p is
    1 / (permutations + 1) (Phipson & Smyth 2010).
    """
    positives = int(scores.labels_S.sum())
    if positives in (0, len(scores.labels_S)):
        return math.nan
    ranks_S = np.mean([rankdata(one_S) for one_S in scores.probabilities_RS], axis=0)
    generator = np.random.default_rng(seed)
    observed = ranks_S[scores.labels_S == 1].sum()  # a linear function of the AUC
    permuted_B = np.array([generator.permutation(ranks_S)[:positives].sum() for _ in range(permutations)])
    return float((1 + (permuted_B >= observed - 1e-9).sum()) / (permutations + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values of a family of tests. NaN stays NaN and does not count as a test."""
    adjusted = [math.nan] * len(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for position, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - position) * p))
        adjusted[i] = largest
    return adjusted


def compare_scores(a: Scores, b: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """The paired comparison of `a` minus `b` on the same subjects (see check_paired), as plain values.

    differences: value and bootstrap interval of every metric; delong: of the AUC; mcnemar: of the predicted classes;
    folds: corrected t-test of the AUC per fold, None if the two runs have different folds.
    """
    of_a, of_b = point_metrics(a), point_metrics(b)
    intervals = bootstrap_differences(a, b, resamples=resamples, seed=seed)
    return {
        "n": len(a.subjects),
        "differences": {
            name: {"value": of_a[name] - of_b[name], "low": intervals[name][0], "high": intervals[name][1]}
            for name in METRICS
        },
        "delong": asdict(delong_difference(a, b)),
        "mcnemar": asdict(mcnemar(a.decisions_S == a.labels_S, b.decisions_S == b.labels_S)),
        "folds": asdict(fold_test(a, b)) if np.array_equal(a.folds_RS, b.folds_RS) else None,
    }


def fold_test(a: Scores, b: Scores) -> FoldTest:
    """Corrected t-test of the AUC of `a` minus the AUC of `b` over the folds that both have."""
    differences, shares = [], []
    for repeat, folds_S in enumerate(a.folds_RS):
        for fold in np.unique(folds_S):
            inside = folds_S == fold
            labels = a.labels_S[inside]
            of_a = classification_metrics(labels, a.probabilities_RS[repeat, inside])["auc"]
            of_b = classification_metrics(labels, b.probabilities_RS[repeat, inside])["auc"]
            differences.append(of_a - of_b)
            shares.append(inside.sum() / max((~inside).sum(), 1))
    return corrected_t_test(differences, float(np.mean(shares)))
