"""Compare fine-tuning runs on the same subjects: paired table, tests of difference, figure.

python compare.py runs/idh runs/idh_scratch runs/idh_vit --out runs/comparison
Every run is compared with the first one. Writes comparison.json, comparison.xlsx and comparison.png.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util import cli, ranges
from util.evaluation.predictions import arrange, read_predictions
from util.evaluation.results_file import statistics_of
from util.evaluation.tables import aligned, format_cell, format_p, without_nan, write_workbook
from util.run_folder import PREDICTIONS, RESULTS
from util.runs import write_json
from util.statistics.comparisons import compare_scores, holm
from util.statistics.exact_intervals import EXTREME_NOTE
from util.statistics.scores import Scores, check_paired
from vis.drawing.evaluation_charts import comparison_chart
from vis.drawing.style import save_png

logger = logging.getLogger(__name__)
METRIC_COLUMNS = (
    "auc",
    "average_precision",
    "accuracy",
    "balanced_accuracy",
    "f1",
    "sensitivity",
    "specificity",
    "brier",
)
PAIRED = ["AUC minus first", "95% low", "95% high", "p DeLong", "Holm", "p McNemar", "p folds"]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Compare fine-tuning runs on the same subjects, every run with the first.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, or their predictions.csv")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/comparison"), metavar="FOLDER", help="folder of the results"
    )
    parser.add_argument("--common", action="store_true", help="use only the subjects that all runs share")
    parser.add_argument("--seed", type=ranges.seed, default=0, help="seed of bootstrap and permutations")
    return parser.parse_args(argv)


def read_runs(paths: Sequence[Path], *, common: bool) -> dict[str, Scores]:
    """{name: scores} in the given order. Raises ValueError with the subjects that are not in all runs."""
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} run given: a comparison needs at least two")
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("a run is given twice: give each run once")
    runs = {}
    tasks: dict[str, str] = {}
    for name, path in zip(short_names(paths), paths):
        file = path / PREDICTIONS if path.is_dir() else path
        runs[name] = arrange(read_predictions(file), str(file))
        results = file.with_name(RESULTS)
        if results.is_file():
            tasks[name] = json.loads(results.read_text(encoding="utf-8")).get("label_type", "")
    if len(set(tasks.values())) > 1:
        raise ValueError(f"the runs predict different labels: {', '.join(f'{n} {t}' for n, t in tasks.items())}")
    if common:
        shared = set.intersection(*(set(scores.subjects) for scores in runs.values()))
        if not shared:
            raise ValueError("the runs have no subject in common")
        logger.info("%d subjects are in every run", len(shared))
        runs = {name: scores.restricted(sorted(shared)) for name, scores in runs.items()}
    first, *others = runs
    for name in others:
        check_paired(runs[first], runs[name], (first, name))
    return runs


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as few as make them differ."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def compare_runs(runs: Mapping[str, Scores], seed: int) -> dict[str, Any]:
    """The statistics of every run, and every other run minus the first, with Holm's adjustment of DeLong's p values."""
    first, *others = runs
    comparisons = [{"name": name, **compare_scores(runs[name], runs[first], seed=seed)} for name in others]
    for entry, adjusted in zip(comparisons, holm([entry["delong"]["p"] for entry in comparisons])):
        entry["delong_holm_p"] = adjusted
    return {
        "reference": first,
        "runs": [{"name": name, "statistics": statistics_of(scores, seed=seed)} for name, scores in runs.items()],
        "comparisons": comparisons,
    }


def run_rows(content: Mapping[str, Any]) -> list[list[Any]]:
    """A header and a row per run: n, metrics, interval of the AUC, and the run minus the first."""
    header = ["run", "n", *(name.replace("_", " ") for name in METRIC_COLUMNS), "AUC low", "AUC high", *PAIRED]
    rows: list[list[Any]] = [header]
    comparisons = {entry["name"]: entry for entry in content["comparisons"]}
    for run in content["runs"]:
        pooled = run["statistics"]["pooled"]
        row = [run["name"], run["statistics"]["n"], *(pooled[name]["value"] for name in METRIC_COLUMNS)]
        row += [pooled["auc"]["low"], pooled["auc"]["high"]]
        entry = comparisons.get(run["name"])
        if entry is None:
            rows.append(row + [None] * len(PAIRED))
            continue
        area, folds = entry["differences"]["auc"], entry["folds"]
        tests = [entry["delong"]["p"], entry["delong_holm_p"], entry["mcnemar"]["p"], folds["p"] if folds else None]
        rows.append([*row, area["value"], area["low"], area["high"], *tests])
    return rows


def difference_rows(content: Mapping[str, Any]) -> list[list[Any]]:
    """A header and a row per metric of every run but the first: value and interval of the run minus the first."""
    rows: list[list[Any]] = [["run", "minus", "metric", "difference", "95% low", "95% high"]]
    for entry in content["comparisons"]:
        for name, interval in entry["differences"].items():
            values = interval["value"], interval["low"], interval["high"]
            rows.append([entry["name"], content["reference"], name, *values])
    return rows


def format_comparison(rows: Sequence[Sequence[Any]]) -> str:
    """The columns of AUC, accuracy, Brier score and tests as text."""
    header = list(rows[0])
    columns = [header.index(name) for name in ("run", "n", "auc", "AUC low", "AUC high", "accuracy", "brier", *PAIRED)]
    lines = [[header[column] for column in columns]]
    for row in rows[1:]:
        is_reference = all(row[header.index(name)] is None for name in PAIRED)
        cells = []
        for column in columns:
            is_p = header[column] == "Holm" or header[column].startswith("p ")
            cells.append(format_p(row[column]) if is_p and not is_reference else format_cell(row[column]))
        lines.append(cells)
    text = aligned(lines)
    if any(row[header.index("auc")] in (0, 1) for row in rows[1:]):
        text.append(EXTREME_NOTE)
    return "\n".join(text)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    runs = read_runs(args.runs, common=args.common)
    content = compare_runs(runs, args.seed)
    rows = run_rows(content)
    write_json(args.out / "comparison.json", without_nan(content))
    write_workbook(args.out / "comparison.xlsx", {"runs": rows, "differences": difference_rows(content)})
    areas = {run["name"]: run["statistics"]["pooled"]["auc"] for run in content["runs"]}
    differences = {entry["name"]: entry["differences"]["auc"] for entry in content["comparisons"]}
    save_png(args.out / "comparison.png", comparison_chart(runs, areas, differences))
    logger.info("%s", format_comparison(rows))
    logger.info("comparison: %s", args.out)


if __name__ == "__main__":
    cli.run(main)
