"""Percentile intervals of the metrics by a bootstrap that resamples patients, stratified by label.

Every resample is a row of weights (how often each subject was drawn), so that 2,000 resamples are a few matrix
products. Models are not trained again: the intervals cover the choice of subjects, not the randomness of training. The
calibration error of a resample is larger than that of the sample, because its bins are noisier; its interval is
therefore biased upwards.
"""

from collections.abc import Mapping

import numpy as np

from util.statistics.delong import ordered_pairs
from util.statistics.exact_intervals import Interval, extreme_interval, sum_interval
from util.statistics.metrics import CALIBRATION_BINS, METRICS, calibration_bins
from util.statistics.scores import Scores

RESAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap_intervals(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The middle 95% of every metric over resamples; NaN for a metric that no resample defines.

    If all resamples give 0, or all give 1, the interval is computed from the number of patients instead
    (util.statistics.exact_intervals).
    """
    resampled = resampled_metrics(scores, stratified_weights(scores, resamples, seed))
    return {name: _interval(name, values_B, scores) for name, values_B in resampled.items()}


def bootstrap_differences(a: Scores, b: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> Mapping[str, Interval]:
    """Intervals of the metrics of `a` minus those of `b` on the same resampled subjects; see check_paired.

    If neither metric varies although the runs differ, the interval is computed from the intervals of the two metrics.
    """
    weights_BS = stratified_weights(a, resamples, seed)
    resampled = [resampled_metrics(scores, weights_BS) for scores in (a, b)]
    is_same = np.array_equal(a.probabilities_RS, b.probabilities_RS) and np.array_equal(
        a.thresholds_RS, b.thresholds_RS
    )
    differences = {}
    for name in METRICS:
        of_a, of_b = (values[name] for values in resampled)
        differences[name] = percentile_interval(of_a - of_b)
        if not is_same and np.ptp(of_a) == np.ptp(of_b) == 0:
            intervals = [_interval(name, of_a, a), _interval(name, of_b, b)]
            differences[name] = sum_interval((1, -1), (float(of_a[0]), float(of_b[0])), intervals)
    return differences


def _interval(name: str, values_B: np.ndarray, scores: Scores) -> Interval:
    low, high = percentile_interval(values_B)
    is_extreme = values_B.min() == values_B.max() in (0, 1)
    return extreme_interval(name, float(values_B[0]), scores) if is_extreme else (low, high)


def stratified_weights(scores: Scores, resamples: int, seed: int) -> np.ndarray:
    """(B, S) counts of a bootstrap that draws patients with replacement within each label.

    All subjects of a patient are drawn together. A patient whose subjects differ in label belongs to class 1.
    """
    generator = np.random.default_rng(seed)
    patients, patient_of_S = np.unique(scores.patients_S, return_inverse=True)
    label_of_P = np.zeros(len(patients), dtype=int)
    np.maximum.at(label_of_P, patient_of_S, scores.labels_S)
    weights_BP = np.zeros((resamples, len(patients)))
    for label in np.unique(label_of_P):
        members = np.flatnonzero(label_of_P == label)
        weights_BP[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), resamples)
    return weights_BP[:, patient_of_S]


def point_metrics(scores: Scores) -> dict[str, float]:
    """Every metric of the sample: pooled over the folds of a repeat, mean over repeats."""
    ones_1S = np.ones((1, len(scores.subjects)))
    return {name: float(values_1[0]) for name, values_1 in resampled_metrics(scores, ones_1S).items()}


def resampled_metrics(scores: Scores, weights_BS: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric (B,) of B weighted samples, mean over repeats; 0 / 0 is NaN."""
    per_repeat = [
        _weighted_metrics(scores.labels_S, probabilities_S, thresholds_S, weights_BS)
        for probabilities_S, thresholds_S in zip(scores.probabilities_RS, scores.thresholds_RS)
    ]
    return {name: np.mean([metrics[name] for metrics in per_repeat], axis=0) for name in METRICS}


def percentile_interval(values_B: np.ndarray) -> Interval:
    """The middle 95% of the values that are not NaN."""
    defined = values_B[~np.isnan(values_B)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return float(low), float(high)


def _weighted_metrics(
    labels_S: np.ndarray, probabilities_S: np.ndarray, thresholds_S: np.ndarray, weights_BS: np.ndarray
) -> dict[str, np.ndarray]:
    is_positive, is_predicted = labels_S == 1, probabilities_S >= thresholds_S
    cells = np.stack([is_positive & is_predicted, is_positive & ~is_predicted, ~is_positive & is_predicted], axis=1)
    tp, fn, fp = (weights_BS @ cells.astype(float)).T
    total = weights_BS.sum(1)
    positives, negatives = tp + fn, total - tp - fn
    bins_SK = np.eye(CALIBRATION_BINS)[calibration_bins(probabilities_S)]
    gaps_BK = weights_BS @ (bins_SK * (labels_S - probabilities_S)[:, None])
    pairs_PN = ordered_pairs(labels_S, probabilities_S)
    ordered_B = ((weights_BS[:, is_positive] @ pairs_PN) * weights_BS[:, ~is_positive]).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = tp / positives, 1 - fp / negatives
        return {
            "accuracy": (total - fn - fp) / total,
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "f1": 2 * tp / (2 * tp + fp + fn),
            "auc": ordered_B / (positives * negatives),
            "average_precision": _average_precision(is_positive, probabilities_S, weights_BS),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "brier": weights_BS @ (probabilities_S - labels_S) ** 2 / total,
            "ece": np.abs(gaps_BK).sum(1) / total,
        }


def _average_precision(is_positive_S: np.ndarray, probabilities_S: np.ndarray, weights_BS: np.ndarray) -> np.ndarray:
    """(B,) sums over thresholds of precision times the increase of recall; equal probabilities are one threshold."""
    order = np.argsort(-probabilities_S, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(probabilities_S[order]) != 0, True))
    hits_BT = np.cumsum(weights_BS[:, order] * is_positive_S[order], axis=1)[:, ends]
    predicted_BT = np.cumsum(weights_BS[:, order], axis=1)[:, ends]
    precision_BT = hits_BT / np.maximum(predicted_BT, 1)  # without a prediction recall does not increase either
    gained_BT = np.diff(hits_BT, axis=1, prepend=0)
    precision_B = (precision_BT * gained_BT).sum(1) / hits_BT[:, -1]
    return np.where(hits_BT[:, -1] == predicted_BT[:, -1], np.nan, precision_B)  # NaN if there is one class only
