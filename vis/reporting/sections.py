"""The parts of a report as plain values for its template: sentences, tables, encoded figures."""

import base64
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from util.evaluation.predictions import Prediction, arrange
from vis.drawing.evaluation_charts import calibration_chart, fold_dots_chart, precision_recall_chart
from vis.drawing.style import png_bytes
from vis.drawing.training_charts import confusion_chart, fold_chart, pretraining_chart, probability_chart, roc_chart
from vis.drawing.wording import CLASS_NAMES, METRIC_NAMES
from vis.reporting.facts import FinetuneFacts, PretrainFacts, fold_table, number
from vis.reporting.statistics import baseline_table, interval_table, methods_text, warnings_of

CSS_PIXELS = 96  # per inch


def drawn(figure: Figure) -> dict[str, Any]:
    """A figure as the template's `picture` wants it: base64 PNG, width in CSS pixels."""
    encoded = base64.b64encode(png_bytes(figure)).decode("ascii")
    return {"png": encoded, "width": round(figure.get_figwidth() * CSS_PIXELS)}


def pretrain_section(facts: PretrainFacts, examples: dict[str, Any]) -> dict[str, Any]:
    normalised = facts.config["model"]["fields"].get("norm_pix_loss", False)
    return {
        "verdict": pretrain_verdict(facts),
        "curve": drawn(pretraining_chart(facts.rows)) if facts.rows else None,
        "norm_pix": " The model predicts patches normalised one by one; each patch's true mean and deviation were put "
        "back, so their brightness is given and their structure predicted." if normalised else "",
        "details": facts.details,
        **examples,
    }  # fmt: skip


def pretrain_verdict(facts: PretrainFacts) -> str:
    """The last loss in words, against predicting each patch's mean."""
    if not facts.rows:
        return "No epoch has finished yet."
    last = facts.rows[-1]
    text = f"After {last['epoch'] + 1} epochs the loss on removed patches is {number(last['train_loss'])}."
    if not (baseline := last.get("baseline_loss")):
        return text
    share = last["train_loss"] / baseline
    below = f"{1 - share:.0%} below" if share < 1 else "not below"
    return f"{text} That is {below} the {number(baseline)} of predicting each patch's mean."


def finetune_section(facts: FinetuneFacts, examples: dict[str, Any]) -> dict[str, Any]:
    label_type, results, predictions = facts.config["label_type"], facts.results, sorted(facts.predictions)
    names = CLASS_NAMES[label_type]
    section: dict[str, Any] = {
        "task": "1p/19q co-deletion" if label_type == "1p19q" else f"{label_type} mutation",
        "k_fold": facts.config["k_fold"],
        "names": names,
        "table": None,
        "missing": "",
        "statistics": None,
        "predictions": predictions,
        "curve": drawn(fold_chart(facts.rows_of_fold)) if facts.rows_of_fold else None,
        "details": facts.details,
        **examples,
    }
    if results and predictions:
        positive = sum(p.label == 1 for p in predictions)
        classes = f"{results['n'] - positive} {names[0]}, {positive} {names[1]}"
        missing = ", ".join(map(str, results.get("missing_folds", [])))
        section |= {
            "table": fold_table(results),
            "cohort": f"{results['n']} subjects of known label ({classes}); unknown, left out: {results['n_unknown']}.",
            "missing": f"Folds that have not run: {missing}. The numbers cover the others only." if missing else "",
            "roc": drawn(roc_chart(predictions)),
            "confusion": drawn(confusion_chart(predictions, names)),
            "dots": drawn(probability_chart(predictions, names)),
            **statistics_part(results, predictions, names),
        }
    return section


def statistics_part(
    results: dict[str, Any], predictions: Sequence[Prediction], names: tuple[str, str]
) -> dict[str, Any]:
    """Intervals, curves, baselines and the methods paragraph; nothing for a run older than they are."""
    if "statistics" not in results:
        return {}
    scores = arrange(predictions)
    return {
        "statistics": {
            "intervals": interval_table(results),
            "baselines": baseline_table(results),
            "methods": methods_text(results, names),
            "warnings": warnings_of(results),
            "precision": drawn(precision_recall_chart(scores)),
            "calibration": drawn(calibration_chart(scores, names[1])),
            "folds": drawn(fold_dots_chart(results)),
        }
    }


def tiles(pretrain: PretrainFacts | None, finetune: FinetuneFacts | None) -> list[tuple[str, str]]:
    """The few numbers that a reader looks for first."""
    found = []
    if finetune is not None and finetune.results is not None:
        results = finetune.results
        area = results.get("statistics", {}).get("pooled", {}).get("auc")
        interval = f", 95% interval {number(area['low'])} to {number(area['high'])}" if area else ""
        title = f"pooled held-out AUC, {finetune.config['label_type']}{interval}"
        found.append((number(results["pooled"]["auc"]), title))
        for name in ("auc", "accuracy"):
            spread = f"{number(results['mean'][name])} ± {number(results['sd'][name])}"
            found.append((spread, f"{METRIC_NAMES[name]}, mean ± SD of {len(results['per_fold'])} folds"))
        found.append((str(results["n"]), f"subjects scored, {results['n_unknown']} of unknown label left out"))
    if pretrain is not None and pretrain.rows:
        last = pretrain.rows[-1]
        beside = f", against {number(last['baseline_loss'])} of each patch's mean" if last.get("baseline_loss") else ""
        found.append((number(last["train_loss"]), f"reconstruction loss{beside}"))
    return found


def phantom_text(pretrain: PretrainFacts | None, finetune: FinetuneFacts | None) -> str:
    """Which data are simulated; empty if none are."""
    uses = (("pre-training", pretrain), ("fine-tuning", finetune))
    simulated = " and ".join(use for use, facts in uses if facts is not None and facts.phantom)
    return f"The {simulated} data are simulated MRI made from an anatomical template." if simulated else ""
