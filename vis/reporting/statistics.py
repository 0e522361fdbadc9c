"""What a report says about an evaluation: tables with intervals, and the words that a methods section needs."""

from collections.abc import Mapping
from typing import Any

from util.evaluation.tables import format_p
from util.statistics.exact_intervals import EXTREME_NOTE, has_extremes
from vis.drawing.wording import METRIC_NAMES
from vis.reporting.facts import NOTHING, number

Table = tuple[list[str], list[list[str]]]
CONTROLS = {
    "background": "the brain was replaced by noise, so that only the outline of the head could tell anything",
    "no_tumour": "the tumour was replaced by the tissue opposite",
    "shuffled_labels": "the labels were dealt out anew among the subjects, so that nothing can be learnt",
}


def interval_table(results: Mapping[str, Any]) -> Table:
    """Metric, pooled value with its 95% interval, mean and SD of the folds."""
    rows = []
    for name, shown in results["statistics"]["pooled"].items():
        spread = f"{number(results['mean'][name])} ± {number(results['sd'][name])}"
        rows.append([METRIC_NAMES[name], number(shown["value"]), _interval(shown), spread])
    delong = results["statistics"]["delong"]
    rows.append(["AUC, interval after DeLong", number(delong["auc"]), _interval(delong), ""])
    return ["Metric", "All folds pooled", "95% interval", "Mean ± SD of folds"], rows


def baseline_table(results: Mapping[str, Any]) -> Table | None:
    """The model, its subgroups and the baselines: subjects, AUC, accuracies, and model minus baseline; None without."""
    if not results["baselines"] and not results["subgroups"]:
        return None
    header = ["", "Subjects", "AUC (95% interval)", "Accuracy", "Balanced accuracy", "AUC of model minus this",
              "p, DeLong", "p, McNemar"]  # fmt: skip
    rows = [_row("This model", results["statistics"], None)]
    rows += [_row(f"This model, {part['name']}", part["statistics"], None) for part in results["subgroups"]]
    for entry in results["baselines"]:
        rows.append(_row(entry["name"].capitalize(), entry["statistics"], entry["model_minus_baseline"]))
    return header, rows


def methods_text(results: Mapping[str, Any], names: tuple[str, str]) -> str:
    """One paragraph: protocol, n, missing labels, how decisions were made, which intervals and tests."""
    statistics, protocol = results["statistics"], results["protocol"]
    n, positive, k = results["n"], results["n_positive"], results["k_fold"]
    repeats = protocol.get("repeats", 1)
    text = (
        f"The classifier was evaluated by {f'{repeats} times repeated ' if repeats > 1 else ''}{k}-fold "
        f"cross-validation, stratified by label{_also_by(protocol)}, in {n} subjects of known label "
        f"({n - positive} {names[0]}, {positive} {names[1]}); {results['n_unknown']} subjects of unknown label were "
        "left out. "
    )
    if protocol.get("group_by"):
        text += f"All subjects of a patient (n = {statistics['n_patients']}) were kept in the same fold. "
    if protocol.get("folds_csv"):
        text += "The division into folds was given beforehand. "
    text += _choices(protocol)
    text += (
        "Metrics are pooled over the held-out predictions of all folds"
        f"{', averaged over repeats,' if repeats > 1 else ''} and given with 95% percentile intervals from "
        f"{statistics['resamples']} bootstrap resamples of patients, stratified by label (seed {statistics['seed']}); "
        "models were not refitted, so the intervals do not carry the variation of training. "
    )
    if has_extremes(statistics["pooled"]):
        text += "Values of 0 and 1 have Wilson's score interval for shares, Newcombe's (2006, method 5) for the AUC. "
    p = statistics["permutation_p"]
    if p is not None:
        text += (
            f"Against {statistics['permutations']} permutations of the labels, which leave the predictions as they "
            f"are, the AUC has p {format_p(p) if p < 0.0001 else f'= {format_p(p)}'}. "
        )
    if results["baselines"]:
        text += (
            "Baselines were fitted and tested in the same folds; differences of AUC are tested after DeLong, of "
            "accuracy by McNemar's exact test, without correction for their number. "
        )
    return text.strip()


def warnings_of(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = []
    if (control := results["protocol"].get("control", "none")) != "none":
        found.append(f"This is a control run: {CONTROLS[control]}. Its AUC is expected near 0.5.")
    if has_extremes(results["statistics"]["pooled"]):
        found.append(EXTREME_NOTE)
    for entry in results["baselines"]:
        difference, name = entry["model_minus_baseline"]["differences"]["auc"], entry["name"]
        if difference["low"] is None or difference["low"] > 0:
            continue
        if difference["high"] < 0:
            found.append(
                f"{name.capitalize()} alone does better than the model: the interval of their difference in AUC lies "
                "below 0."
            )
        else:
            found.append(
                f"The model is not shown to be better than {name} alone: the interval of their difference in AUC "
                "holds 0."
            )
    return found


def _also_by(protocol: Mapping[str, Any]) -> str:
    return f" and {protocol['stratify_by']}" if protocol.get("stratify_by") else ""


def _choices(protocol: Mapping[str, Any]) -> str:
    fraction = protocol.get("val_fraction", 0)
    if not fraction:
        return "The last epoch was tested and decisions were made at probability 0.5; nothing was chosen by results. "
    chosen = ["the epoch"] if protocol.get("select") == "best_val" else []
    chosen += ["a temperature"] if protocol.get("calibrate") == "temperature" else []
    chosen += ["the threshold"] if protocol.get("threshold") == "val" else []
    what = " and ".join([", ".join(chosen[:-1]), chosen[-1]] if len(chosen) > 1 else chosen) or "nothing"
    text = f"Within each training part {fraction:.0%} of the patients were set aside, on which {what} was chosen; "
    return text + "the held-out fold was used for testing only. "


def _interval(shown: Mapping[str, Any]) -> str:
    return NOTHING if shown["low"] is None else f"{number(shown['low'])} to {number(shown['high'])}"


def _row(name: str, statistics: Mapping[str, Any], beside: Mapping[str, Any] | None) -> list[str]:
    pooled = statistics["pooled"]
    area = f"{number(pooled['auc']['value'])} ({_interval(pooled['auc'])})"
    cells = [name, str(statistics["n"]), area, number(pooled["accuracy"]["value"])]
    cells.append(number(pooled["balanced_accuracy"]["value"]))
    if beside is None:
        return [*cells, "", "", ""]
    difference = beside["differences"]["auc"]
    shown = f"{number(difference['value'])} ({_interval(difference)})"
    return [*cells, shown, format_p(beside["delong"]["p"]), format_p(beside["mcnemar"]["p"])]
