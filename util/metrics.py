"""Classification metrics of a binary task, from labels and probabilities."""

import math
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, roc_auc_score

METRICS = ("accuracy", "f1", "auc", "sensitivity", "specificity")


def classification_metrics(labels: Sequence[int], probabilities: Sequence[float]) -> dict[str, float]:
    """accuracy, f1, auc, sensitivity and specificity of class 1 at threshold 0.5; a metric that needs a class which
    is absent is nan."""
    truth, scores = np.asarray(labels), np.asarray(probabilities, dtype=float)
    if len(truth) == 0 or len(truth) != len(scores):
        raise ValueError(f"{len(truth)} labels and {len(scores)} probabilities: both must be given, equally many")
    predicted = (scores >= 0.5).astype(int)
    (tn, fp), (fn, tp) = confusion_matrix(truth, predicted, labels=[0, 1])
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1": float(f1_score(truth, predicted, zero_division=0.0)),  # pyright: ignore[reportArgumentType]  # the stub knows str only
        "auc": float(roc_auc_score(truth, scores)) if len(set(truth.tolist())) == 2 else math.nan,
        "sensitivity": tp / (tp + fn) if tp + fn else math.nan,
        "specificity": tn / (tn + fp) if tn + fp else math.nan,
    }
