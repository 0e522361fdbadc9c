"""Names as readers know them."""

from util.glioma import CLASS_NAMES as CLASS_NAMES

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
    """What a pre-trained model is asked for: patches that were removed, or (None) the next one of its scan."""
    if mask_ratio is None:
        return "each patch predicted from those before it in the scan"
    return f"{mask_ratio:.0%} of patches removed"
