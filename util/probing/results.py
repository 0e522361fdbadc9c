"""The results of a comparison of probes: results.json, results.csv, predictions, and a table as text."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.evaluation.predictions import Prediction, write_predictions
from util.evaluation.summary import summarise
from util.evaluation.tables import without_nan
from util.files.atomic import atomic_write
from util.run_folder import RESULTS
from util.runs import write_json

REPORTED = ("auc", "accuracy")


@dataclass(frozen=True)
class ProbeRow:
    """One probe of one layer of one checkpoint. chosen: its settings in each fold; predictions: those of all held-out
    subjects."""

    checkpoint: str
    layer: int
    probe: str
    chosen: list[dict[str, Any]]
    predictions: list[Prediction]


def write_probe_results(
    folder: Path, rows: Sequence[ProbeRow], *, label_type: str, n_unknown: int, k_fold: int, folds_hash: str
) -> str:
    """Write results.json (with null for NaN), results.csv and predictions/NN.csv. Returns the table as text."""
    entries = []
    for number, row in enumerate(rows):
        file = Path("predictions") / f"{number:02d}.csv"
        write_predictions(folder / file, row.predictions)
        summary = summarise(row.predictions, label_type=label_type, n_unknown=n_unknown, k_fold=k_fold)
        entries.append(
            {"checkpoint": row.checkpoint, "layer": row.layer, "probe": row.probe, "chosen": row.chosen,
             "predictions": file.as_posix(), **summary}
        )  # fmt: skip
    settings = {"label_type": label_type, "k_fold": k_fold, "folds_hash": folds_hash, "n_unknown": n_unknown}
    write_json(folder / RESULTS, without_nan({**settings, "rows": entries}))
    with atomic_write(folder / "results.csv", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["checkpoint", "layer", "probe", "fold", "n", *REPORTED, "chosen"])
        for entry in entries:
            writer.writerows(_lines(entry))
    return format_probes(entries)


def format_probes(entries: Sequence[dict[str, Any]]) -> str:
    """A line per checkpoint, layer and probe with AUC and accuracy: mean over folds (SD), and pooled."""
    width = max(len("checkpoint"), *(len(entry["checkpoint"]) for entry in entries))
    titles = ["AUC mean (SD)", "pooled", "accuracy mean (SD)", "pooled"]
    lines = [f"{'checkpoint':<{width}}  layer  {'probe':<8}  " + "  ".join(title.rjust(18) for title in titles)]
    for entry in entries:
        cells = []
        for name in REPORTED:
            cells += [f"{entry['mean'][name]:.3f} ({entry['sd'][name]:.3f})", f"{entry['pooled'][name]:.3f}"]
        head = f"{entry['checkpoint']:<{width}}  {entry['layer']:>5}  {entry['probe']:<8}  "
        lines.append(head + "  ".join(cell.rjust(18) for cell in cells))
    return "\n".join(lines)


def _lines(entry: dict[str, Any]) -> list[list[Any]]:
    """Rows of results.csv: one per fold, then mean, SD and pooled."""
    head = [entry["checkpoint"], entry["layer"], entry["probe"]]
    chosen = [json.dumps(settings) for settings in entry["chosen"]]
    lines = [
        [*head, row["fold"], row["n"], *(row[name] for name in REPORTED), settings]
        for row, settings in zip(entry["per_fold"], chosen, strict=True)
    ]
    for title in ("mean", "sd", "pooled"):
        n = entry["n"] if title == "pooled" else None
        lines.append([*head, title, n, *(entry[title][name] for name in REPORTED), None])
    return [
        ["" if cell is None or cell != cell else cell for cell in line] for line in lines
    ]  # NaN differs from itself
