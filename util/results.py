"""Predictions of a cross-validation: predictions.csv, metrics per fold and pooled, the printed table.

predictions.csv, a row per subject and repeat: subject, fold, label (0 or 1), probability of class 1, repeat, threshold
of the decision, patient. The last three may be absent: repeat 0, 0.5, and every subject a patient of its own.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from util.atomic import atomic_write
from util.metrics import METRICS, THRESHOLD, classification_metrics

COLUMNS = ("subject", "fold", "label", "probability", "repeat", "threshold", "patient")
REQUIRED = COLUMNS[:4]


@dataclass(frozen=True, order=True)
class Prediction:
    """Held-out probability of class 1 for one subject. fold: counted through all repeats. patient: "" = the subject."""

    subject: str
    fold: int
    label: int
    probability: float
    repeat: int = 0
    threshold: float = THRESHOLD
    patient: str = ""


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for p in sorted(predictions):
            numbers = {"probability": f"{p.probability:.8f}", "threshold": f"{p.threshold:.8g}"}
            writer.writerow({**asdict(p), **numbers}.values())


def read_predictions(path: Path) -> list[Prediction]:
    """ValueError names the file, the line, and what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"{path} is missing: no fold of that run has finished, or it is no "
                         "fine-tuning run, or one that was exported without predictions")  # fmt: skip
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if lacking := [name for name in REQUIRED if name not in (reader.fieldnames or [])]:
            raise ValueError(f"{path} has no column {', '.join(lacking)}; its first line must name them")
        found = []
        for row in reader:
            try:
                found.append(
                    Prediction(
                        row["subject"],
                        int(row["fold"]),
                        int(row["label"]),
                        float(row["probability"]),
                        int(row.get("repeat") or 0),
                        float(row.get("threshold") or THRESHOLD),
                        row.get("patient") or "",
                    )
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}; correct or remove that line") from error
    return found


def pooled_metrics(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Metrics over all folds of a repeat, the mean over repeats."""
    repeats = sorted({p.repeat for p in predictions})
    found = [_metrics([p for p in predictions if p.repeat == repeat]) for repeat in repeats]
    return {name: float(np.mean([metrics[name] for metrics in found])) for name in METRICS}


def summarise(
    predictions: Sequence[Prediction], *, label_type: str, n_unknown: int, k_fold: int, repeats: int = 1
) -> dict[str, Any]:
    """Per-fold, mean, SD and pooled metrics; folds that have not run are named.

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


def table_rows(summary: dict[str, Any]) -> list[list[Any]]:
    """Header, one row per fold, mean, SD, pooled."""
    rows: list[list[Any]] = [["fold", "n", *METRICS]]
    rows += [[row["fold"], row["n"], *(row[name] for name in METRICS)] for row in summary["per_fold"]]
    for name in ("mean", "sd"):
        rows.append([name, None, *(summary[name][metric] for metric in METRICS)])
    rows.append(["pooled", summary["n"], *(summary["pooled"][metric] for metric in METRICS)])
    return rows


def format_table(summary: dict[str, Any]) -> str:
    """The table as text; n/a for what is not defined."""
    lines = [
        f"{summary['label_type']}: {summary['n']} subjects ({summary['n_positive']} positive), "
        f"{summary['n_unknown']} of unknown label left out"
    ]
    rows = [[format_cell(cell).replace("_", " ") for cell in row] for row in table_rows(summary)]
    lines += aligned(rows)
    if summary["missing_folds"]:
        lines.append(f"folds that have not run: {', '.join(map(str, summary['missing_folds']))}")
    return "\n".join(lines)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def format_cell(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return "n/a" if math.isnan(cell) else f"{cell:z.3f}"
    return str(cell)


def without_nan(value: Any) -> Any:
    """The same, lists and dictionaries included, with None for every NaN: JSON and sheets know no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _metrics(members: Sequence[Prediction]) -> dict[str, float]:
    thresholds = np.array([p.threshold for p in members])
    return classification_metrics([p.label for p in members], [p.probability for p in members], thresholds)
