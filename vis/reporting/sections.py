"""The sections of a report as plain values for the template: sentences, tables, encoded figures."""

import base64
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from util.evaluation.predictions import Prediction, arrange
from vis.drawing.evaluation_charts import (
    calibration_chart,
    confusion_chart,
    fold_dots_chart,
    precision_recall_chart,
    probability_chart,
    roc_chart,
)
from vis.drawing.style import png_bytes
from vis.drawing.training_charts import fold_chart, pretraining_chart
from vis.drawing.wording import CLASS_NAMES, METRIC_NAMES
from vis.reporting.facts import FinetuneFacts, PretrainFacts, fold_table, format_number
from vis.reporting.statistics import baseline_table, interval_table, methods_text, warnings_of

CSS_PIXELS = 96  # per inch


def encoded(figure: Figure) -> dict[str, Any]:
    """A figure for the template: base64 PNG and width in CSS pixels."""
    encoded = base64.b64encode(png_bytes(figure)).decode("ascii")
    return {"png": encoded, "width": round(figure.get_figwidth() * CSS_PIXELS)}


def pretrain_section(facts: PretrainFacts, examples: dict[str, Any]) -> dict[str, Any]:
    """Values of the pre-training section. examples: {examples, problem}."""
    normalised = facts.config["model"]["fields"].get("norm_pix_loss", False)
    return {
        "task": _pretraining_task(facts.config["mask_ratio"]),
        "loss": loss_sentence(facts),
        "curve": encoded(pretraining_chart(facts.rows)) if facts.rows else None,
        "norm_pix": " The model predicts normalised patches. The true mean and deviation of each patch were restored "
        "for display: the brightness is that of the input, the structure is predicted." if normalised else "",
        "details": facts.details,
        **examples,
    }  # fmt: skip


def _pretraining_task(mask_ratio: float | None) -> str:
    if mask_ratio is None:
        return "An autoregressive model predicts each patch of a volume from the patches before it in the scan."
    return "A masked autoencoder sees part of the patches of a volume and predicts the others."


def loss_sentence(facts: PretrainFacts) -> str:
    """The last loss, compared with the baseline that predicts the mean of each patch."""
    if not facts.rows:
        return "No epoch has finished yet."
    last = facts.rows[-1]
    text = f"After {last['epoch'] + 1} epochs the loss on removed patches is {format_number(last['train_loss'])}."
    if not (baseline := last.get("baseline_loss")):
        return text
    share = last["train_loss"] / baseline
    below = f"{1 - share:.0%} below" if share < 1 else "not below"
    return f"{text} This is {below} the baseline that predicts the mean of each patch ({format_number(baseline)})."


def finetune_section(facts: FinetuneFacts, examples: dict[str, Any]) -> dict[str, Any]:
    """Values of the fine-tuning section. examples: {examples, problem}."""
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
        "curve": encoded(fold_chart(facts.rows_of_fold)) if facts.rows_of_fold else None,
        "details": facts.details,
        **examples,
    }
    if results and predictions:
        positive = sum(p.label == 1 for p in predictions)
        classes = f"{results['n'] - positive} {names[0]}, {positive} {names[1]}"
        missing = ", ".join(map(str, results.get("missing_folds", [])))
        section |= {
            "table": fold_table(results),
            "cohort": f"{results['n']} subjects have a known label ({classes}); {results['n_unknown']} of unknown "
            "label were excluded.",
            "missing": f"Folds that have not run: {missing}. The results cover the other folds only."
            if missing
            else "",
            "roc": encoded(roc_chart(predictions)),
            "confusion": encoded(confusion_chart(predictions, names)),
            "dots": encoded(probability_chart(predictions, names)),
            **statistics_section(results, predictions, names),
        }
    return section


def statistics_section(
    results: dict[str, Any], predictions: Sequence[Prediction], names: tuple[str, str]
) -> dict[str, Any]:
    """Intervals, curves, baselines and the methods paragraph. Empty for an older run without statistics."""
    if "statistics" not in results:
        return {}
    scores = arrange(predictions)
    return {
        "statistics": {
            "intervals": interval_table(results),
            "baselines": baseline_table(results),
            "methods": methods_text(results, names),
            "warnings": warnings_of(results),
            "precision": encoded(precision_recall_chart(scores)),
            "calibration": encoded(calibration_chart(scores, names[1])),
            "folds": encoded(fold_dots_chart(results)),
        }
    }


def tiles(pretrain: PretrainFacts | None, finetune: FinetuneFacts | None) -> list[tuple[str, str]]:
    """(value, description) of the main results, for the top of the report."""
    rows = []
    if finetune is not None and finetune.results is not None:
        results = finetune.results
        area = results.get("statistics", {}).get("pooled", {}).get("auc")
        interval = f", 95% interval {format_number(area['low'])} to {format_number(area['high'])}" if area else ""
        title = f"pooled held-out AUC, {finetune.config['label_type']}{interval}"
        rows.append((format_number(results["pooled"]["auc"]), title))
        for name in ("auc", "accuracy"):
            spread = f"{format_number(results['mean'][name])} ± {format_number(results['sd'][name])}"
            rows.append((spread, f"{METRIC_NAMES[name]}, mean ± SD of {len(results['per_fold'])} folds"))
        rows.append((str(results["n"]), f"held-out subjects; {results['n_unknown']} of unknown label excluded"))
    if pretrain is not None and pretrain.rows:
        last = pretrain.rows[-1]
        baseline = f", baseline {format_number(last['baseline_loss'])}" if last.get("baseline_loss") else ""
        rows.append((format_number(last["train_loss"]), f"reconstruction loss{baseline}"))
    return rows


def phantom_text(pretrain: PretrainFacts | None, finetune: FinetuneFacts | None) -> str:
    """A sentence on which data are simulated. Empty if none are."""
    uses = (("pre-training", pretrain), ("fine-tuning", finetune))
    simulated = " and ".join(use for use, facts in uses if facts is not None and facts.phantom)
    return f"The {simulated} data are simulated MRI, made from an anatomical template." if simulated else ""
