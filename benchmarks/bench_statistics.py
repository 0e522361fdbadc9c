"""The statistics against independent computations, and coverage and error rates of their intervals and tests.

python -m benchmarks.bench_statistics [--quick]
"""

import logging
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, mannwhitneyu, norm, ttest_1samp
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from benchmarks.measuring.commandline import begin, parse
from util import cli
from util.evaluation.predictions import Prediction, arrange
from util.statistics.bootstrap import bootstrap_intervals, point_metrics, resampled_metrics, stratified_weights
from util.statistics.comparisons import corrected_t_test, mcnemar, permutation_p
from util.statistics.delong import Z95, delong_difference, delong_interval
from util.statistics.metrics import METRICS, classification_metrics
from util.statistics.scores import Scores

logger = logging.getLogger(__name__)
NOTE = (
    "Cohorts are drawn from two normal classes; two runs of a cohort share half of their variance. The true AUC is "
    "Phi(distance / sqrt 2). Coverage: share of cohorts whose 95% interval contains the true AUC. False alarms: share "
    "of cohorts in which a test at the 5% level finds a difference between two equally good runs, or finds random "
    "labels above chance. With 1,000 cohorts, the 95% interval of a share of 0.95 or 0.05 is +-0.014."
)
SIZES = ((20, 30), (33, 33), (155, 312))  # small, the demo, EGD
DISTANCES = (0.0, 1.5, 2.5)  # AUC 0.5, 0.86, 0.96
K = 5


def cohort(generator: np.random.Generator, positives: int, negatives: int, distance: float) -> list[Scores]:
    """Two correlated, equally good runs on the same subjects."""
    labels = np.repeat([1, 0], [positives, negatives])
    shared = generator.normal(size=len(labels))
    runs = distance * labels + math.sqrt(0.5) * (shared + generator.normal(size=(2, len(labels))))
    probabilities = norm.cdf(runs - distance / 2)
    return [
        arrange([Prediction(f"s{i:04d}", i % K, int(labels[i]), float(one[i])) for i in range(len(labels))])
        for one in probabilities
    ]


def brute_force_error(labels: Sequence[int], probabilities: Sequence[float]) -> float:
    """DeLong's standard error by loops over all pairs (equations 4 to 7 of the paper)."""
    ones, zeros = ([p for y, p in zip(labels, probabilities) if y == c] for c in (1, 0))

    def psi(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    area = sum(psi(x, y) for x in ones for y in zeros) / (len(ones) * len(zeros))
    of_ones = sum((sum(psi(x, y) for y in zeros) / len(zeros) - area) ** 2 for x in ones) / (len(ones) - 1)
    of_zeros = sum((sum(psi(x, y) for x in ones) / len(ones) - area) ** 2 for y in zeros) / (len(zeros) - 1)
    return math.sqrt(of_ones / len(ones) + of_zeros / len(zeros))


def agreement(repetitions: int) -> list[list[object]]:
    """(quantity, independent computation, cases, largest absolute difference)."""
    generator = np.random.default_rng(0)
    gaps: dict[tuple[str, str], list[float]] = {}
    for _ in range(repetitions):
        a, b = cohort(generator, 12, 18, 1.0)
        labels, one = a.labels_S, a.probabilities_RS[0]
        metrics = point_metrics(a)
        weights = stratified_weights(a, 5, int(generator.integers(1000)))
        vectorised = resampled_metrics(a, weights)
        explicit = [np.repeat(np.arange(len(labels)), row) for row in weights.astype(int)]
        expected = [classification_metrics(labels[chosen], one[chosen]) for chosen in explicit]
        right = [s.decisions_S == labels for s in (a, b)]
        test = mcnemar(right[0], right[1])
        fewer, total = min(test.only_first, test.only_second), test.only_first + test.only_second
        values = generator.normal(0.02, 0.05, K)
        auc = mannwhitneyu(one[labels == 1], one[labels == 0]).statistic / (12 * 18)
        for name, independent, gap in (
            ("AUC", "scipy mannwhitneyu", abs(metrics["auc"] - auc)),
            ("AUC", "scikit-learn", abs(metrics["auc"] - float(roc_auc_score(labels, one)))),
            ("average precision", "scikit-learn",
             abs(metrics["average_precision"] - average_precision_score(labels, one))),
            ("Brier score", "scikit-learn", abs(metrics["brier"] - brier_score_loss(labels, one))),
            ("all metrics of resamples", "scikit-learn on the explicit resample",
             max(abs(vectorised[m][i] - expected[i][m]) for m in METRICS for i in range(5))),
            ("DeLong's standard error", "loops over pairs",
             abs(delong_interval(a).error - brute_force_error(labels.tolist(), one.tolist()))),
            ("McNemar's p", "binomial distribution", abs(test.p - min(1.0, 2 * binom.cdf(fewer, total, 0.5)))),
            ("t-test without correction", "scipy ttest_1samp",
             abs(corrected_t_test(values.tolist(), 0.0).p - float(np.asarray(ttest_1samp(values, 0))[1]))),
        ):  # fmt: skip
            gaps.setdefault((name, independent), []).append(float(gap))
    return [[name, independent, len(own), f"{max(own):.1e}"] for (name, independent), own in gaps.items()]


def coverage(cohorts: int, resamples: int) -> list[list[object]]:
    """(size, true AUC, coverage and mean width of bootstrap, DeLong and DeLong without log-odds, false alarms)."""
    rows = []
    for positives, negatives in SIZES:
        for distance in DISTANCES:
            generator, truth = np.random.default_rng(1), float(norm.cdf(distance / math.sqrt(2)))
            hits, widths, alarms = np.zeros(3), np.zeros(3), np.zeros(3)
            for index in range(cohorts):
                a, b = cohort(generator, positives, negatives, distance)
                area = delong_interval(a)
                intervals = (
                    bootstrap_intervals(a, resamples=resamples, seed=index)["auc"],
                    (area.low, area.high),
                    (area.auc - Z95 * area.error, min(area.auc + Z95 * area.error, 1.0)),
                )
                for method, (low, high) in enumerate(intervals):
                    hits[method] += low <= truth <= high
                    widths[method] += high - low
                alarms[0] += delong_difference(a, b).p < 0.05
                alarms[1] += mcnemar(a.decisions_S == a.labels_S, b.decisions_S == b.labels_S).p < 0.05
                if distance == 0:
                    alarms[2] += permutation_p(a, permutations=199, seed=index) <= 0.05
            pairs = [share for both in zip(hits, widths) for share in both]
            shares = [f"{share / cohorts:.3f}" for share in (*pairs, *alarms[:2])]
            chance = f"{alarms[2] / cohorts:.3f}" if distance == 0 else ""
            rows.append([f"{positives} + {negatives}", f"{truth:.3f}", *shares, chance])
            logger.info("%s", rows[-1])
    return rows


def fold_tests(cohorts: int) -> list[list[object]]:
    """(test, folds, false alarms) for differences of folds that correlate because their training parts overlap."""
    rows = []
    for repeats in (1, 10):
        generator, count = np.random.default_rng(2), K * repeats
        shared = generator.normal(size=(cohorts, 1)) * math.sqrt(1 / K)
        folds = shared + generator.normal(size=(cohorts, count)) * math.sqrt(1 - 1 / K)
        for name, share in (("corrected (Nadeau & Bengio)", 1 / (K - 1)), ("plain t-test", 0.0)):
            alarms = np.mean([corrected_t_test(row.tolist(), share).p < 0.05 for row in folds])
            rows.append([name, f"{repeats} x {K}", f"{alarms:.3f}"])
    return rows


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("statistics", "Statistics, verified", argv))
    report, cohorts = options.report, 10 if options.quick else 1000
    report.text(NOTE)
    report.section("Agreement with independent computations")
    report.table(
        ["quantity", "independent computation", "cases", "largest difference"], agreement(5 if options.quick else 200)
    )
    report.section("Intervals and tests over simulated cohorts", f"{cohorts} cohorts a row, 500 resamples each.")
    methods = ("bootstrap", "DeLong", "DeLong without log-odds")
    header = ["cohort", "true AUC", *(text for name in methods for text in (f"{name}: coverage", "width"))]
    header += ["false alarms: paired DeLong", "McNemar", "permutation"]
    report.table(header, coverage(cohorts, 20 if options.quick else 500))
    report.section("Tests over folds", "Differences of folds with mean 0 and correlation 1 / k.")
    report.table(["test", "folds", "false alarms"], fold_tests(cohorts * 5))
    report.write()
    options.finish()


if __name__ == "__main__":
    cli.run(main)
