"""Predictions of a cross-validation gathered into tables: predictions.csv, results.json, results.xlsx, text."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from openpyxl import Workbook
from openpyxl.styles import Font

from util.atomic import atomic_write
from util.metrics import METRICS, classification_metrics
from util.runs import write_json


@dataclass(frozen=True, order=True)
class Prediction:
    """Held-out probability of class 1 for one subject."""

    subject: str
    fold: int
    label: int
    probability: float


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", "fold", "label", "probability"])
        for p in sorted(predictions):
            writer.writerow([p.subject, p.fold, p.label, f"{p.probability:.8f}"])


def read_predictions(path: Path) -> list[Prediction]:
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Prediction(row["subject"], int(row["fold"]), int(row["label"]), float(row["probability"]))
            for row in csv.DictReader(file)
        ]


def summarise(predictions: Sequence[Prediction], *, label_type: str, n_unknown: int, k_fold: int) -> dict[str, Any]:
    """Per-fold, mean, SD and pooled metrics; folds that have not run are named."""
    folds = sorted({p.fold for p in predictions})
    per_fold = []
    for fold in folds:
        members = [p for p in predictions if p.fold == fold]
        scores = classification_metrics([p.label for p in members], [p.probability for p in members])
        per_fold.append({"fold": fold, "n": len(members), **scores})
    pooled = classification_metrics([p.label for p in predictions], [p.probability for p in predictions])
    columns = {name: np.array([row[name] for row in per_fold]) for name in METRICS}
    defined = {name: values[~np.isnan(values)] for name, values in columns.items()}
    return {
        "label_type": label_type,
        "n": len(predictions),
        "n_positive": sum(p.label for p in predictions),
        "n_unknown": n_unknown,
        "missing_folds": [fold for fold in range(k_fold) if fold not in folds],
        "per_fold": per_fold,
        "mean": {name: float(v.mean()) if len(v) else math.nan for name, v in defined.items()},
        "sd": {name: float(v.std(ddof=1)) if len(v) > 1 else math.nan for name, v in defined.items()},
        "pooled": pooled,
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
    """The table as text."""
    lines = [
        f"{summary['label_type']}: {summary['n']} subjects ({summary['n_positive']} positive), "
        f"{summary['n_unknown']} of unknown label left out"
    ]
    for row in table_rows(summary):
        cells = ["" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append("".join(cell.rjust(13) for cell in cells))
    if summary["missing_folds"]:
        lines.append(f"folds that have not run: {', '.join(map(str, summary['missing_folds']))}")
    return "\n".join(lines)


def write_results(folder: Path, predictions: Sequence[Prediction], summary: dict[str, Any]) -> None:
    """predictions.csv, results.json and results.xlsx of a run folder. NaN is written as null or an empty cell."""
    write_predictions(folder / "predictions.csv", predictions)
    write_json(folder / "results.json", without_nan(summary))
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "folds"
    for row in table_rows(summary):
        sheet.append([without_nan(cell) for cell in row])
    subjects = book.create_sheet("subjects")
    subjects.append(["subject", "fold", "label", "probability"])
    for p in sorted(predictions):
        subjects.append([None, p.fold, p.label, p.probability])
        name = subjects.cell(subjects.max_row, 1, p.subject)
        name.data_type = "s"  # a name that starts with = is a name, no formula
    for page in book:
        for cell in page[1]:
            cell.font = Font(bold=True)
    with atomic_write(folder / "results.xlsx") as file:
        book.save(file)


def without_nan(value: Any) -> Any:
    """The same, lists and dictionaries included, with None for every NaN: JSON and sheets know no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
