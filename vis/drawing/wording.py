"""The words of figures and reports: names of contrasts, metrics and classes, and captions."""

from util.evaluation.predictions import Prediction
from util.patient.who_2021 import CLASS_NAMES as CLASS_NAMES

CONTRAST_NAMES = {"t1": "T1", "t2": "T2", "t1ce": "T1ce", "flair": "FLAIR"}
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "Average precision",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score",
    "ece": "Calibration error",
}


def task_words(mask_ratio: float | None) -> str:
    """The pre-training task in words. mask_ratio: None for an autoregressive model."""
    if mask_ratio is None:
        return "each patch predicted from the patches before it in the scan"
    return f"{mask_ratio:.0%} of patches removed"


def prediction_caption(label_type: str, recorded: Prediction | None, probability: float, fold: int) -> str:
    """The caption of a held-out subject: label, predicted probability of class 1, fold."""
    names = CLASS_NAMES[label_type]
    label = names[recorded.label] if recorded else "label not recorded"
    return f"{label} · predicted probability of {names[1]} {probability:.2f} · held out in fold {fold}"
