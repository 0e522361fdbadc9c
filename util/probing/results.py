"""What a comparison of probes leaves behind: a printed table, results.json, results.csv, predictions per row."""

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

SHOWN = ("auc", "accuracy")


@dataclass(frozen=True)
class ProbeRow:
    """One probe of one layer of one checkpoint. chosen: per fold, its settings; predictions: of every held-out
    subject."""

    checkpoint: str
    layer: int
    probe: str
    chosen: list[dict[str, Any]]
    predictions: list[Prediction]


def write_probe_results(
    folder: Path, rows: Sequence[ProbeRow], *, label_type: str, n_unknown: int, k_fold: int, folds_hash: str
) -> str:
    """Write results.json, results.csv and predictions/NN.csv; the table as text is returned. NaN becomes null."""
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
        writer.writerow(["checkpoint", "layer", "probe", "fold", "n", *SHOWN, "chosen"])
        for entry in entries:
            writer.writerows(_lines(entry))
    return format_table(entries)


def format_table(entries: Sequence[dict[str, Any]]) -> str:
    """One line per checkpoint, layer and probe: AUC and accuracy as mean over folds (SD) and pooled."""
    width = max(len("checkpoint"), *(len(entry["checkpoint"]) for entry in entries))
    titles = ["AUC mean (SD)", "pooled", "accuracy mean (SD)", "pooled"]
    lines = [f"{'checkpoint':<{width}}  layer  {'probe':<8}  " + "  ".join(title.rjust(18) for title in titles)]
    for entry in entries:
        cells = []
        for name in SHOWN:
            cells += [f"{entry['mean'][name]:.3f} ({entry['sd'][name]:.3f})", f"{entry['pooled'][name]:.3f}"]
        head = f"{entry['checkpoint']:<{width}}  {entry['layer']:>5}  {entry['probe']:<8}  "
        lines.append(head + "  ".join(cell.rjust(18) for cell in cells))
    return "\n".join(lines)


def _lines(entry: dict[str, Any]) -> list[list[Any]]:
    """A line per fold, then mean, SD and pooled."""
    head = [entry["checkpoint"], entry["layer"], entry["probe"]]
    chosen = [json.dumps(settings) for settings in entry["chosen"]]
    lines = [
        [*head, row["fold"], row["n"], *(row[name] for name in SHOWN), settings]
        for row, settings in zip(entry["per_fold"], chosen, strict=True)
    ]
    for title in ("mean", "sd", "pooled"):
        n = entry["n"] if title == "pooled" else None
        lines.append([*head, title, n, *(entry[title][name] for name in SHOWN), None])
    return [["" if cell is None or cell != cell else cell for cell in line] for line in lines]  # NaN is not itself
