"""What is said of one patient: report.json, report.html and a row of predictions.csv, from one dictionary."""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from util.files.atomic import atomic_write
from util.inference.ensemble import FoldEnsemble, Opinion
from util.patient.novelty import Novelty
from util.patient.who_2021 import LIMITS, who_2021
from util.runs import write_json
from vis.drawing.style import NOTICE
from vis.drawing.wording import CLASS_NAMES
from vis.reporting.sections import drawn

TEMPLATES = Path(__file__).resolve().parent / "templates"
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
    opinion: Opinion,
    novelty: Novelty | None,
    not_judged: str,
    maps: dict[str, str],
    completeness: dict[str, dict[str, Any]],
    viewer: str | None = None,
) -> dict[str, Any]:
    """Of one run. not_judged: why there is no novelty, empty where there is. maps: file per kind.
    completeness: of the kinds that approximate an integral. viewer: its file."""
    names = CLASS_NAMES[ensemble.label_type]
    return {
        "label_type": ensemble.label_type,
        "predicts": names[1],
        "decision": names[ensemble.called(opinion)],
        "threshold": ensemble.threshold,
        "probability": opinion.probability,
        "sd_over_folds": opinion.sd,
        "by_fold": {str(fold): value for fold, value in opinion.by_fold.items()},
        "how": _how(ensemble),
        "decision_by_fold": {str(fold): asdict(found) for fold, found in ensemble.decisions.items()},
        "novelty": None if novelty is None else {**asdict(novelty), "unlike": novelty.unlike},
        "novelty_not_judged": not_judged,
        "maps": maps,
        "completeness": completeness,
        "viewer": viewer,
        "run": str(ensemble.folder.resolve()),
        "model": ensemble.config["model"]["name"],
        "checkpoints": {str(fold): str(path.resolve()) for fold, path in ensemble.checkpoints.items()},
    }


def _how(ensemble: FoldEnsemble) -> str:
    """In words, how a fold's probability and the call come about: as in the run's own results."""
    found = ensemble.decisions.values()
    parts = ["weights of the epoch that its validation part chose" if any(d.select == "best_val" for d in found)
             else "weights of the last epoch"]  # fmt: skip
    if ensemble.config.get("args", {}).get("ema") is not None:
        parts.append("averaged while training")
    if any(d.tta == "flip" for d in found):
        parts.append("probabilities of the scan and its mirror image averaged (maps and comparison: the scan as it is)")
    if any(d.temperature != 1 for d in found):
        parts.append(f"temperatures {', '.join(f'{d.temperature:.3f}' for d in found)}")
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
    """report.json, its keys in order. unlike_training: reasons for doubt, empty if there are none."""
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
        f"{run['label_type']}: features {run['novelty']['distance']:.1f} times as far from those of held-out subjects "
        f"as is usual (p = {run['novelty']['p']:.3f}, {run['novelty']['n']} subjects)"
        for run in runs
        if run["novelty"] and run["novelty"]["unlike"]
    ]
    reasons += [f"without {', '.join(missing)}"] if missing else []
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
    """FOLDER/report.json and FOLDER/report.html, self-contained; pictures: (caption, figure)."""
    write_json(folder / "report.json", facts)
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("patient.html").render(
        facts=facts, pictures=[{"caption": caption, **drawn(figure)} for caption, figure in pictures]
    )
    with atomic_write(folder / "report.html", "w") as file:
        file.write(html)


def write_table(path: Path, reports: Sequence[dict[str, Any]], problems: dict[str, str]) -> None:
    """predictions.csv: a row per patient: the facts of those that were read, the problem of the others."""
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
