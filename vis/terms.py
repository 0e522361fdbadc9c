"""Names as readers know them."""

CONTRAST_NAMES = {"t1": "T1", "t2": "T2", "t1ce": "T1ce", "flair": "FLAIR"}
CLASS_NAMES = {
    "IDH": ("IDH wild type", "IDH mutant"),
    "1p19q": ("1p/19q intact", "1p/19q co-deleted"),
}
METRIC_NAMES = {
    "accuracy": "Accuracy",
    "f1": "F1",
    "auc": "AUC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
