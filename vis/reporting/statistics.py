"""The statistics of an evaluation in a report: tables with intervals, the methods paragraph, warnings."""

from collections.abc import Mapping
from typing import Any

from util.evaluation.tables import format_p
from util.statistics.exact_intervals import EXTREME_NOTE, has_extremes
from vis.drawing.wording import METRIC_NAMES
from vis.reporting.facts import NOT_DEFINED, format_number

Table = tuple[list[str], list[list[str]]]  # header, rows
CONTROLS = {
    "background": "the brain was replaced by noise, so that only its outline carries information",
    "no_tumour": "the tumour was replaced by tissue of the other hemisphere",
    "shuffled_labels": "the labels were permuted among the subjects, so that there is nothing to learn",
}


def interval_table(results: Mapping[str, Any]) -> Table:
    """One row per metric: pooled value with its 95% interval, mean and SD of the folds."""
    rows = []
    for name, shown in results["statistics"]["pooled"].items():
        spread = f"{format_number(results['mean'][name])} ± {format_number(results['sd'][name])}"
        rows.append([METRIC_NAMES[name], format_number(shown["value"]), _interval(shown), spread])
    delong = results["statistics"]["delong"]
    rows.append(["AUC, DeLong interval", format_number(delong["auc"]), _interval(delong), ""])
    return ["Metric", "All folds pooled", "95% interval", "Mean ± SD of folds"], rows


def baseline_table(results: Mapping[str, Any]) -> Table | None:
    """One row for the model, each subgroup and each baseline. None without subgroups and baselines.

    Columns: subjects, AUC, accuracies, and the difference between model and baseline with its tests.
    """
    if not results["baselines"] and not results["subgroups"]:
        return None
    header = ["", "Subjects", "AUC (95% interval)", "Accuracy", "Balanced accuracy", "AUC, model minus baseline",
              "p, DeLong", "p, McNemar"]  # fmt: skip
    rows = [_row("This model", results["statistics"], None)]
    rows += [_row(f"This model, {part['name']}", part["statistics"], None) for part in results["subgroups"]]
    for entry in results["baselines"]:
        rows.append(_row(entry["name"].capitalize(), entry["statistics"], entry["model_minus_baseline"]))
    return header, rows


def methods_text(results: Mapping[str, Any], names: tuple[str, str]) -> str:
    """The methods paragraph: protocol, subjects, missing labels, decisions, intervals and tests."""
    statistics, protocol = results["statistics"], results["protocol"]
    n, positive, k = results["n"], results["n_positive"], results["k_fold"]
    repeats = protocol.get("repeats", 1)
    text = (
        f"The classifier was evaluated by {f'{repeats} times repeated ' if repeats > 1 else ''}{k}-fold "
        f"cross-validation, stratified by label{_also_by(protocol)}, in {n} subjects of known label "
        f"({n - positive} {names[0]}, {positive} {names[1]}); {results['n_unknown']} subjects of unknown label were "
        "excluded. "
    )
    if protocol.get("group_by"):
        text += f"All subjects of a patient (n = {statistics['n_patients']}) were kept in the same fold. "
    if protocol.get("folds_csv"):
        text += "The folds were predefined. "
    text += _model_selection(protocol)
    text += (
        "Metrics are pooled over the held-out predictions of all folds"
        f"{', averaged over repeats,' if repeats > 1 else ''} and given with 95% percentile intervals from "
        f"{statistics['resamples']} bootstrap resamples of patients, stratified by label (seed {statistics['seed']}); "
        "models were not retrained, so the intervals do not include the variation between trainings. "
    )
    if has_extremes(statistics["pooled"]):
        text += (
            "Metrics equal to 0 or 1 have Wilson's score interval (proportions) or Newcombe's interval (AUC; 2006, "
            "method 5). "
        )
    p = statistics["permutation_p"]
    if p is not None:
        text += (
            f"A permutation test of the AUC ({statistics['permutations']} permutations of the labels, predictions "
            f"fixed) gives p {format_p(p) if p < 0.0001 else f'= {format_p(p)}'}. "
        )
    if results["baselines"]:
        text += (
            "Baselines were fitted and tested in the same folds. Differences in AUC were tested with DeLong's test, "
            "differences in accuracy with McNemar's exact test, without correction for multiple comparisons. "
        )
    return text.strip()


def warnings_of(results: Mapping[str, Any]) -> list[str]:
    """Warnings about the interpretation of the results."""
    warnings = []
    if (control := results["protocol"].get("control", "none")) != "none":
        warnings.append(f"This is a control run: {CONTROLS[control]}. An AUC near 0.5 is expected.")
    if has_extremes(results["statistics"]["pooled"]):
        warnings.append(EXTREME_NOTE)
    for entry in results["baselines"]:
        difference, name = entry["model_minus_baseline"]["differences"]["auc"], entry["name"]
        if difference["low"] is None or difference["low"] > 0:
            continue
        if difference["high"] < 0:
            warnings.append(
                f'The baseline "{name}" has a higher AUC than the model: the interval of the difference lies below 0.'
            )
        else:
            warnings.append(
                f'The model is not shown to be better than the baseline "{name}": the interval of the difference in '
                "AUC includes 0."
            )
    return warnings


def _also_by(protocol: Mapping[str, Any]) -> str:
    """The second stratification variable, if there is one."""
    return f" and {protocol['stratify_by']}" if protocol.get("stratify_by") else ""


def _model_selection(protocol: Mapping[str, Any]) -> str:
    fraction = protocol.get("val_fraction", 0)
    if not fraction:
        return (
            "The model of the last epoch was tested with a decision threshold of 0.5; no choice was based on results. "
        )
    chosen = ["the epoch"] if protocol.get("select") == "best_val" else []
    chosen += ["a temperature"] if protocol.get("calibrate") == "temperature" else []
    chosen += ["the threshold"] if protocol.get("threshold") == "val" else []
    listed = " and ".join([", ".join(chosen[:-1]), chosen[-1]] if len(chosen) > 1 else chosen)
    use = f"to select {listed}" if chosen else "that was not used"
    text = f"Within each training set, {fraction:.0%} of the patients formed a validation set {use}. "
    return text + "The held-out fold was used for testing only. "


def _interval(shown: Mapping[str, Any]) -> str:
    return NOT_DEFINED if shown["low"] is None else f"{format_number(shown['low'])} to {format_number(shown['high'])}"


def _row(name: str, statistics: Mapping[str, Any], beside: Mapping[str, Any] | None) -> list[str]:
    pooled = statistics["pooled"]
    area = f"{format_number(pooled['auc']['value'])} ({_interval(pooled['auc'])})"
    cells = [name, str(statistics["n"]), area, format_number(pooled["accuracy"]["value"])]
    cells.append(format_number(pooled["balanced_accuracy"]["value"]))
    if beside is None:
        return [*cells, "", "", ""]
    difference = beside["differences"]["auc"]
    shown = f"{format_number(difference['value'])} ({_interval(difference)})"
    return [*cells, shown, format_p(beside["delong"]["p"]), format_p(beside["mcnemar"]["p"])]
