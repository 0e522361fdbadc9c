"""The metrics of a cross-validation per fold and pooled, and their table."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from util.evaluation.predictions import Prediction
from util.evaluation.tables import aligned, format_cell
from util.statistics.metrics import METRICS, classification_metrics


def pooled_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """The metrics over all folds of a repeat, mean over repeats."""
    repeats = sorted({p.repeat for p in predictions})
    per_repeat = [_metrics([p for p in predictions if p.repeat == repeat]) for repeat in repeats]
    return {name: float(np.mean([metrics[name] for metrics in per_repeat])) for name in METRICS}


def summarise(
    predictions: Sequence[Prediction], *, label_type: str, n_unknown: int, k_fold: int, repeats: int = 1
) -> dict[str, Any]:
    """The metrics per fold, their mean and SD, and the pooled metrics. missing_folds lists folds that have not run.

    Keys: label_type, n and n_positive (subjects), n_unknown, k_fold, repeats, missing_folds, per_fold (a list), mean,
    sd, pooled.
    """
    folds = sorted({p.fold for p in predictions})
    per_fold = []
    for fold in folds:
        members = [p for p in predictions if p.fold == fold]
        per_fold.append({"fold": fold, "n": len(members), **_metrics(members)})
    columns = {name: np.array([row[name] for row in per_fold]) for name in METRICS}
    defined = {name: values[~np.isnan(values)] for name, values in columns.items()}
    label_of = {p.subject: p.label for p in predictions}
    return {
        "label_type": label_type,
        "n": len(label_of),
        "n_positive": sum(label_of.values()),
        "n_unknown": n_unknown,
        "k_fold": k_fold,
        "repeats": repeats,
        "missing_folds": [fold for fold in range(k_fold * repeats) if fold not in folds],
        "per_fold": per_fold,
        "mean": {name: float(v.mean()) if len(v) else math.nan for name, v in defined.items()},
        "sd": {name: float(v.std(ddof=1)) if len(v) > 1 else math.nan for name, v in defined.items()},
        "pooled": pooled_metrics(predictions),
    }


def summary_rows(summary: dict[str, Any]) -> list[list[Any]]:
    """A header, one row per fold, and the rows mean, SD and pooled."""
    rows: list[list[Any]] = [["fold", "n", *METRICS]]
    rows += [[row["fold"], row["n"], *(row[name] for name in METRICS)] for row in summary["per_fold"]]
    for name in ("mean", "sd"):
        rows.append([name, None, *(summary[name][metric] for metric in METRICS)])
    rows.append(["pooled", summary["n"], *(summary["pooled"][metric] for metric in METRICS)])
    return rows


def format_summary(summary: dict[str, Any]) -> str:
    """The table as text; n/a for values that are not defined."""
    lines = [
        f"{summary['label_type']}: {summary['n']} subjects ({summary['n_positive']} positive), "
        f"{summary['n_unknown']} of unknown label left out"
    ]
    rows = [[format_cell(cell).replace("_", " ") for cell in row] for row in summary_rows(summary)]
    lines += aligned(rows)
    if summary["missing_folds"]:
        lines.append(f"folds that have not run: {', '.join(map(str, summary['missing_folds']))}")
    return "\n".join(lines)


def _metrics(members: Sequence[Prediction]) -> dict[str, float]:
    thresholds = np.array([p.threshold for p in members])
    return classification_metrics([p.label for p in members], [p.probability for p in members], thresholds)
