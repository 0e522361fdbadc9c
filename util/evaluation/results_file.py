"""The evaluation of a cross-validation: statistics of the model, its subgroups and the baselines, and the files for
them.

results.json; a number that is not defined is null:
    label_type, n, n_positive, n_unknown, k_fold, repeats, missing_folds, per_fold, mean, sd, pooled
                        see util.evaluation.summary.summarise
    protocol            how folds, validation part and decisions were made (options of main_cr_finetune.py)
    statistics          confidence, resamples, seed, n, n_positive, n_patients, repeats (those that the statistics use),
                        pooled {metric: value, low, high} (bootstrap), delong {auc, error, low, high}, permutation_p;
                        a metric that is 0 or 1 in every resample, and DeLong's AUC of 0 or 1, has an interval from the
                        number of patients (util.statistics.exact_intervals)
    subgroups           [{name, statistics}], the same for part of the subjects
    baselines           [{name, features, statistics, model_minus_baseline}] over the subjects whose features are known;
                        model_minus_baseline: see util.statistics.comparisons.compare_scores
results.xlsx has the sheets summary, per fold, per subject, comparisons, settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from util.evaluation.baselines import Baseline
from util.evaluation.predictions import COLUMNS, Prediction, arrange, write_predictions
from util.evaluation.summary import summary_rows
from util.evaluation.tables import aligned, format_cell, format_p, without_nan, write_workbook
from util.run_folder import PREDICTIONS, RESULTS, WORKBOOK
from util.runs import write_json
from util.statistics.bootstrap import CONFIDENCE, RESAMPLES, bootstrap_intervals, point_metrics
from util.statistics.comparisons import PERMUTATIONS, compare_scores, permutation_p
from util.statistics.delong import delong_interval
from util.statistics.exact_intervals import EXTREME_NOTE, has_extremes
from util.statistics.metrics import METRICS
from util.statistics.scores import Scores


def statistics_of(scores: Scores, *, seed: int = 0) -> dict[str, Any]:
    """The pooled metrics (mean over repeats) with their intervals, and the test against chance."""
    values = point_metrics(scores)
    intervals = bootstrap_intervals(scores, seed=seed)
    return {
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "permutations": PERMUTATIONS,
        "seed": seed,
        "n": len(scores.subjects),
        "n_positive": int(scores.labels_S.sum()),
        "n_patients": len(set(scores.patients_S.tolist())),
        "repeats": len(scores.probabilities_RS),
        "pooled": {
            name: {"value": values[name], "low": intervals[name][0], "high": intervals[name][1]} for name in METRICS
        },
        "delong": asdict(delong_interval(scores)),
        "permutation_p": permutation_p(scores, seed=seed),
    }


def evaluate(
    summary: Mapping[str, Any],
    predictions: Sequence[Prediction],
    *,
    baselines: Sequence[Baseline] = (),
    subgroups: Mapping[str, Sequence[str]] | None = None,
    protocol: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of results.json. subgroups: {name: subjects}; subjects without a prediction are ignored."""
    model = arrange(predictions)
    compared = []
    for baseline in baselines:
        if not baseline.predictions:
            continue
        scores = arrange(baseline.predictions)
        entry = {"name": baseline.name, "features": baseline.features}
        difference = compare_scores(model.restricted(scores.subjects), scores, seed=seed)
        compared.append({**entry, "statistics": statistics_of(scores, seed=seed), "model_minus_baseline": difference})
    parts = {name: model.restricted(subjects) for name, subjects in (subgroups or {}).items()}
    return {
        **summary,
        "protocol": dict(protocol or {}),
        "statistics": statistics_of(model, seed=seed),
        "subgroups": [
            {"name": name, "statistics": statistics_of(part, seed=seed)}
            for name, part in parts.items()
            if part.subjects
        ],
        "baselines": compared,
    }


def write_results(folder: Path, predictions: Sequence[Prediction], results: Mapping[str, Any]) -> None:
    """Write predictions.csv, results.json and results.xlsx of a run folder."""
    write_predictions(folder / PREDICTIONS, predictions)
    write_json(folder / RESULTS, without_nan(dict(results)))
    write_workbook(folder / WORKBOOK, sheets(predictions, results))


def sheets(predictions: Sequence[Prediction], results: Mapping[str, Any]) -> dict[str, list[list[Any]]]:
    """{title: rows, the header first} of the sheets of results.xlsx."""
    rows = summary_rows(dict(results))
    pooled = results["statistics"]["pooled"]
    summary: list[list[Any]] = [["metric", "pooled", "95% low", "95% high", "mean of folds", "SD of folds"]]
    for name in METRICS:
        entry = pooled[name]
        summary.append([name, entry["value"], entry["low"], entry["high"], results["mean"][name], results["sd"][name]])
    delong = results["statistics"]["delong"]
    summary.append(["auc (DeLong)", delong["auc"], delong["low"], delong["high"], None, None])
    summary.append(["permutation p", results["statistics"]["permutation_p"], None, None, None, None])
    subjects = [list(COLUMNS), *([getattr(p, name) for name in COLUMNS] for p in sorted(predictions))]
    settings = [["setting", "value"], *_settings(results)]
    return {"summary": summary, "per fold": rows, "per subject": subjects, "comparisons": comparison_rows(results),
            "settings": settings}  # fmt: skip


def comparison_rows(results: Mapping[str, Any]) -> list[list[Any]]:
    """A header, then rows of the model, its subgroups and every baseline: AUC, accuracy, and model minus baseline."""
    rows: list[list[Any]] = [
        ["", "n", "AUC", "95% low", "95% high", "accuracy", "balanced accuracy", "model AUC minus this",
         "95% low", "95% high", "p (DeLong)", "p (McNemar)", "p (folds, corrected t)"]
    ]  # fmt: skip
    rows.append(["this model", *_score_cells(results["statistics"]), *[None] * 6])
    for part in results["subgroups"]:
        rows.append([part["name"], *_score_cells(part["statistics"]), *[None] * 6])
    for entry in results["baselines"]:
        comparison = entry["model_minus_baseline"]
        area, folds = comparison["differences"]["auc"], comparison["folds"]
        tests = [comparison["delong"]["p"], comparison["mcnemar"]["p"], folds["p"] if folds else None]
        cells = _score_cells(entry["statistics"])
        rows.append([entry["name"], *cells, area["value"], area["low"], area["high"], *tests])
    return rows


def format_statistics(results: Mapping[str, Any]) -> str:
    """The pooled metrics with their intervals, and the table of baselines, as text."""
    statistics = results["statistics"]
    lines = [f"pooled over folds, 95% interval by {statistics['resamples']} bootstrap resamples of patients:"]
    pooled = statistics["pooled"]
    rows = [[name.replace("_", " "), *(format_cell(pooled[name][key]) for key in ("value", "low", "high"))]
            for name in METRICS]  # fmt: skip
    lines += aligned(rows)
    delong = statistics["delong"]
    lines.append(f"AUC by DeLong {format_cell(delong['low'])} to {format_cell(delong['high'])}; "
                 f"against shuffled labels p = {format_p(statistics['permutation_p'])}")  # fmt: skip
    if has_extremes(pooled):
        lines.append(EXTREME_NOTE)
    if results["baselines"] or results["subgroups"]:
        unpaired = {"this model", *(part["name"] for part in results["subgroups"])}
        header, *rows = comparison_rows(results)
        cells = [[*map(format_cell, row[:10]), "" if row[0] in unpaired else format_p(row[10])] for row in rows]
        lines += aligned([header[:11], *cells])
    return "\n".join(lines)


def _score_cells(statistics: Mapping[str, Any]) -> list[Any]:
    area, pooled = statistics["pooled"]["auc"], statistics["pooled"]
    accuracies = [pooled[name]["value"] for name in ("accuracy", "balanced_accuracy")]
    return [statistics["n"], area["value"], area["low"], area["high"], *accuracies]


def _settings(results: Mapping[str, Any]) -> list[list[Any]]:
    known = {name: results[name] for name in ("label_type", "n", "n_positive", "n_unknown", "k_fold", "repeats")}
    used = {name: results["statistics"][name] for name in ("resamples", "permutations", "confidence", "seed")}
    plain = {**known, "missing_folds": results["missing_folds"], **results["protocol"], **used}
    return [
        [name, value if isinstance(value, int | float | str) and not isinstance(value, bool) else str(value)]
        for name, value in plain.items()
    ]
