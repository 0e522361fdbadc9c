"""Classification metrics of a binary task, from labels and probabilities of class 1.

brier: mean squared difference of probability and label, 0 to 1, lower is better. ece: expected calibration error over
ten bins of equal width (Naeini et al. 2015), 0 to 1, lower is better.
"""

import math
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, f1_score, roc_auc_score

METRICS = (
    "accuracy", "balanced_accuracy", "f1", "auc", "average_precision", "sensitivity", "specificity", "brier", "ece",
)  # fmt: skip
THRESHOLD = 0.5  # at or above it the predicted class is 1
CALIBRATION_BINS = 10


def classification_metrics(
    labels: Sequence[int] | np.ndarray,
    probabilities: Sequence[float] | np.ndarray,
    thresholds: float | np.ndarray = THRESHOLD,
) -> dict[str, float]:
    """METRICS by name; NaN for a metric that needs an absent class or is 0 / 0.

    thresholds: one for all subjects, or one for each subject (S,), as for thresholds that differ between folds.
    """
    truth, scores = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if len(truth) == 0 or len(truth) != len(scores):
        raise ValueError(f"{len(truth)} labels and {len(scores)} probabilities: both must be given, equally many")
    predicted = (scores >= thresholds).astype(int)
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, labels=[0, 1])
    sensitivity = tp / (tp + fn) if tp + fn else math.nan
    specificity = tn / (tn + fp) if tn + fp else math.nan
    both = len(set(truth.tolist())) == 2
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "balanced_accuracy": float(sensitivity + specificity) / 2,
        "f1": float(f1_score(truth, predicted)) if tp + fp + fn else math.nan,
        "auc": float(roc_auc_score(truth, scores)) if both else math.nan,
        "average_precision": float(average_precision_score(truth, scores)) if both else math.nan,
        "sensitivity": float(sensitivity),
        "specificity": float(specificity),
        "brier": float(np.mean((scores - truth) ** 2)),
        "ece": expected_calibration_error(truth, scores),
    }


def expected_calibration_error(labels_S: np.ndarray, probabilities_S: np.ndarray) -> float:
    """Mean over subjects of |observed - predicted rate| of the subject's bin."""
    bins_S = calibration_bins(probabilities_S)
    gaps = np.bincount(bins_S, labels_S - probabilities_S, CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels_S))


def calibration_bins(probabilities_S: np.ndarray) -> np.ndarray:
    """(S,) probabilities -> (S,) numbers of their bins [0, 0.1), ..., [0.9, 1]."""
    return np.minimum((probabilities_S * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
