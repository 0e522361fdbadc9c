"""The report on one patient: report.json, report.html and a row of predictions.csv, all from the same facts."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from util.files.atomic import atomic_write
from util.inference.ensemble import EnsemblePrediction, FoldEnsemble
from util.patient.novelty import Novelty
from util.patient.who_2021 import LIMITS, who_2021
from util.runs import write_json
from vis.drawing.style import NOTICE
from vis.drawing.wording import CLASS_NAMES
from vis.export.html_file import write_html
from vis.export.patient_maps import PatientMaps
from vis.reporting.sections import encoded

TEMPLATE = Path(__file__).resolve().parent / "templates" / "patient.html"
PROBABILITIES = {"IDH": "IDH_mutant", "1p19q": "1p19q_codeleted"}
COLUMNS: tuple[str, ...] = (
    "patient",
    *(f"{what}_{kind}" for kind in PROBABILITIES.values() for what in ("probability", "sd")),
    "who_2021",
    "unlike_training",
    "missing_contrasts",
    "warnings",
    "problem",
    "notice",
)


def run_facts(
    ensemble: FoldEnsemble,
    prediction: EnsemblePrediction,
    novelty: Novelty | None,
    not_compared: str,
    maps: PatientMaps,
) -> dict[str, Any]:
    """The facts of one run. not_compared: the reason why there is no novelty, or an empty string."""
    names = CLASS_NAMES[ensemble.label_type]
    return {
        "label_type": ensemble.label_type,
        "predicts": names[1],
        "decision": names[ensemble.predicted_class(prediction)],
        "threshold": ensemble.threshold,
        "probability": prediction.probability,
        "sd_over_folds": prediction.sd,
        "by_fold": {str(fold): value for fold, value in prediction.by_fold.items()},
        "how": _prediction_method(ensemble),
        "decision_by_fold": {str(fold): asdict(decision) for fold, decision in ensemble.decisions.items()},
        "novelty": None if novelty is None else {**asdict(novelty), "unlike": novelty.unlike},
        "novelty_not_judged": not_compared,
        "maps": maps.files,
        "completeness": {name: completeness.facts() for name, completeness in maps.completeness.items()},
        "viewer": maps.viewer,
        "run": str(ensemble.folder.resolve()),
        "model": ensemble.config["model"]["name"],
        "checkpoints": {str(fold): str(path.resolve()) for fold, path in ensemble.checkpoints.items()},
    }


def _prediction_method(ensemble: FoldEnsemble) -> str:
    """How the models compute probabilities, in words. The method is that of the results of the run."""
    decisions = ensemble.decisions.values()
    selected = any(decision.select == "best_val" for decision in decisions)
    parts = ["weights of the epoch selected on the validation set" if selected else "weights of the last epoch"]
    if ensemble.config.get("args", {}).get("ema") is not None:
        parts.append("exponential moving average of the weights")
    if any(decision.tta == "flip" for decision in decisions):
        parts.append("probabilities averaged over the scan and its mirror image (maps and comparison: the scan only)")
    if any(decision.temperature != 1 for decision in decisions):
        parts.append(f"temperatures {', '.join(f'{decision.temperature:.3f}' for decision in decisions)}")
    return "; ".join(parts)


def patient_facts(
    patient: str,
    files: dict[str, str],
    runs: list[dict[str, Any]],
    *,
    missing: Sequence[str],
    warnings: Sequence[str],
    seconds: dict[str, float],
    environment: dict[str, Any],
) -> dict[str, Any]:
    """The content of report.json, in order. unlike_training: reasons to doubt the predictions, or an empty list."""
    by_label = {run["label_type"]: run for run in runs}
    who = None
    if {"IDH", "1p19q"} <= by_label.keys():
        idh, codeletion = by_label["IDH"], by_label["1p19q"]
        reading = who_2021(
            idh["probability"],
            codeletion["probability"],
            idh_threshold=idh["threshold"],
            codeletion_threshold=codeletion["threshold"],
        )
        who = {**asdict(reading), "limits": LIMITS}
    reasons = [
        f"{run['label_type']}: the distance to held-out subjects is {run['novelty']['distance']:.1f} times the median "
        f"(p = {run['novelty']['p']:.3f}, {run['novelty']['n']} subjects)"
        for run in runs
        if run["novelty"] and run["novelty"]["unlike"]
    ]
    reasons += [f"missing contrasts: {', '.join(missing)}"] if missing else []
    return {
        "notice": NOTICE,
        "patient": patient,
        "files": files,
        "who_2021": who,
        "runs": runs,
        "unlike_training": [*reasons, *warnings],
        "missing_contrasts": list(missing),
        "warnings": list(warnings),
        "seconds": {stage: round(value, 2) for stage, value in seconds.items()},
        "environment": environment,
    }


def write_patient_report(folder: Path, facts: dict[str, Any], pictures: Sequence[tuple[str, Figure]]) -> None:
    """Write FOLDER/report.json and FOLDER/report.html, a single file. pictures: (caption, figure)."""
    write_json(folder / "report.json", facts)
    shown = [{"caption": caption, **encoded(figure)} for caption, figure in pictures]
    write_html(folder / "report.html", TEMPLATE, facts=facts, pictures=shown)


def write_predictions_table(path: Path, reports: Sequence[dict[str, Any]], problems: dict[str, str]) -> None:
    """Write predictions.csv: one row per patient. problems: the reasons of failures, by name of the patient."""
    with atomic_write(path, "w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
        writer.writeheader()
        for facts in reports:
            row: dict[str, str] = {
                "patient": facts["patient"],
                "who_2021": facts["who_2021"]["reading"] if facts["who_2021"] else "",
                "unlike_training": "yes" if facts["unlike_training"] else "no",
                "missing_contrasts": " ".join(facts["missing_contrasts"]),
                "warnings": "; ".join(facts["warnings"]),
                "notice": NOTICE,
            }
            for run in facts["runs"]:
                kind = PROBABILITIES[run["label_type"]]
                row |= {f"probability_{kind}": f"{run['probability']:.6f}", f"sd_{kind}": f"{run['sd_over_folds']:.6f}"}
            writer.writerow(row)
        for patient, problem in problems.items():
            writer.writerow({"patient": patient, "problem": problem, "notice": NOTICE})
