"""Charts of an evaluation: ROC, precision-recall, calibration, decisions, metrics per fold, comparison of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from util.evaluation.predictions import Prediction, arrange
from util.statistics.bootstrap import point_metrics
from util.statistics.curves import GRID, reliability, roc_band
from util.statistics.scores import Scores
from vis.drawing.style import BLUE, GREEN, INK, MUTED, ORANGE, PAGE_WIDTH, PURPLE, RULE, SKY, styled
from vis.drawing.wording import METRIC_NAMES

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
DOTTED = ("auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity")
SQUARE = (4.4, 4.2)
SHARE = (-0.02, 1.02)


@styled
def roc_chart(predictions: Sequence[Prediction]) -> Figure:
    """ROC curves of each fold (thin), of all folds pooled (thick) and of chance (dotted).

    The band holds the middle 95% of resampled patients. A fold with one class has no curve. The repeats of a
    cross-validation are averaged.
    """
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2, label="chance")
    for fold in sorted({p.fold for p in predictions}):
        labels, scores = _labels_and_probabilities([p for p in predictions if p.fold == fold])
        if len(set(labels.tolist())) == 2:
            false_rate, true_rate, _ = roc_curve(labels, scores)
            axes.plot(false_rate, true_rate, color=BLUE, linewidth=0.9, alpha=0.45)
    pooled = arrange(predictions)
    if len(set(pooled.labels_S.tolist())) == 2:
        band, area = roc_band(pooled), point_metrics(pooled)["auc"]
        label = "95% band over resampled patients"
        axes.fill_between(GRID, band.low_G, band.high_G, color=BLUE, alpha=0.13, linewidth=0, label=label)
        false_rate, true_rate = [0, *GRID], [0, *band.values_G]
        if len(pooled.probabilities_RS) == 1:  # a single repeat: the exact steps
            false_rate, true_rate, _ = roc_curve(pooled.labels_S, pooled.probabilities_RS[0])
        axes.plot(false_rate, true_rate, color=BLUE, linewidth=2.6, label=f"all folds pooled, AUC {area:.3f}")
    axes.plot([], [], color=BLUE, linewidth=0.9, alpha=0.45, label="single folds")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right", fontsize=8)
    return figure


@styled
def confusion_chart(predictions: Sequence[Prediction], names: Sequence[str]) -> Figure:
    """Counts of the pooled held-out decisions, each at the threshold of its fold, shaded by share of the true class."""
    labels, scores = _labels_and_probabilities(predictions)
    decisions = scores >= np.array([p.threshold for p in predictions])
    counts = confusion_matrix(labels, decisions, labels=[0, 1])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.25)
    for truth in range(2):
        for decision in range(2):
            colour = "white" if shares[truth, decision] > 0.65 else INK
            axes.text(decision, truth - 0.06, str(counts[truth, decision]), ha="center", va="center", fontsize=20,
                      fontweight="bold", color=colour)  # fmt: skip
            axes.text(decision, truth + 0.2, f"{shares[truth, decision]:.0%} of row", ha="center", va="center",
                      fontsize=8, color=colour)  # fmt: skip
    axes.set_xticks([0, 1], names)
    axes.set_yticks([0, 1], names, rotation=90, va="center")
    axes.set(xlabel="predicted", ylabel="true")
    axes.grid(False)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


@styled
def probability_chart(predictions: Sequence[Prediction], names: Sequence[str]) -> Figure:
    """Predicted probability of class 1 of every held-out subject, one row per true class."""
    figure = Figure(figsize=(PAGE_WIDTH, 2.0), layout="constrained")
    axes = figure.subplots()
    for threshold in sorted({p.threshold for p in predictions}):
        axes.axvline(threshold, color=MUTED, linestyle=":", linewidth=1.2)
    for label, colour in ((0, BLUE), (1, ORANGE)):
        scores = np.array([p.probability for p in sorted(predictions) if p.label == label])
        spread = (np.arange(len(scores)) * 0.618034) % 1 - 0.5  # spread evenly, without random numbers
        axes.scatter(scores, label + 0.5 * spread, s=22, color=colour, alpha=0.7, edgecolors="white", linewidths=0.5)
    axes.set_yticks([0, 1], [f"true: {name}" for name in names])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.5, 1.5), xlabel=f"predicted probability of {names[1]}")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_color(RULE)
    return figure


@styled
def precision_recall_chart(scores: Scores) -> Figure:
    """Precision over recall: each fold (thin), all folds pooled (thick), the share of class 1, i.e. chance (dotted)."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.subplots()
    share = float(scores.labels_S.mean())
    axes.axhline(share, color=MUTED, linestyle=":", linewidth=1.2, label=f"chance (share of class 1, {share:.2f})")
    for repeat, folds_S in enumerate(scores.folds_RS):
        for fold in np.unique(folds_S):
            inside = folds_S == fold
            if len(set(scores.labels_S[inside].tolist())) == 2:
                precision, recall, _ = precision_recall_curve(
                    scores.labels_S[inside], scores.probabilities_RS[repeat, inside]
                )
                axes.step(recall, precision, where="post", color=BLUE, linewidth=0.9, alpha=0.4)
    if 0 < share < 1:
        for repeat, one_S in enumerate(scores.probabilities_RS):
            precision, recall, _ = precision_recall_curve(scores.labels_S, one_S)
            label = "all folds pooled" if repeat == 0 else None
            axes.step(recall, precision, where="post", color=BLUE, linewidth=2.4, label=label)
    axes.plot([], [], color=BLUE, linewidth=0.9, alpha=0.4, label="single folds")
    axes.set(xlim=SHARE, ylim=SHARE, aspect="equal", xlabel="recall (sensitivity)", ylabel="precision")
    axes.legend(loc="lower left", fontsize=8)
    return figure


@styled
def calibration_chart(scores: Scores, positive: str) -> Figure:
    """Reliability diagram: observed share of class 1 against predicted probability, with exact 95% intervals.

    The subjects are divided into groups of equal size.
    """
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes, counts = figure.subplots(2, 1, height_ratios=[5, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2, label="perfect calibration")
    groups = reliability(scores)
    predicted, observed = [g.predicted for g in groups], [g.observed for g in groups]
    bars = [[g.observed - g.low for g in groups], [g.high - g.observed for g in groups]]
    axes.errorbar(predicted, observed, bars, color=BLUE, marker="o", markersize=5, linewidth=1.6, elinewidth=1,
                  capsize=2.5, label=f"{len(groups)} groups of equal size")  # fmt: skip
    axes.set(xlim=SHARE, ylim=SHARE, ylabel=f"observed share of {positive}")
    axes.legend(loc="upper left", fontsize=8)
    counts.hist(scores.probabilities_RS.mean(0), bins=np.linspace(0, 1, 21).tolist(), color=BLUE, alpha=0.6)
    counts.set(xlabel=f"predicted probability of {positive}", ylabel="subjects")
    return figure


@styled
def fold_dots_chart(results: Mapping[str, Any]) -> Figure:
    """Metrics of every fold (dots), their mean (line), and the pooled value with its interval if there is one."""
    figure = Figure(figsize=(PAGE_WIDTH, 2.9), layout="constrained")
    axes = figure.subplots()
    names = [name for name in DOTTED if name in results["pooled"]]
    pooled = results.get("statistics", {}).get("pooled", {})
    for place, name in enumerate(names):
        values = [row[name] for row in results["per_fold"] if row.get(name) is not None]
        spread = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.22  # spread evenly, without random numbers
        axes.scatter(place - 0.16 + spread, values, s=24, color=BLUE, alpha=0.6, edgecolors="white", linewidths=0.5)
        if results["mean"].get(name) is not None:
            axes.plot([place - 0.32, place], [results["mean"][name]] * 2, color=BLUE, linewidth=2)
        shown = pooled.get(name, {"value": results["pooled"][name], "low": None, "high": None})
        if shown["value"] is not None:
            axes.plot(place + 0.2, shown["value"], marker="D", markersize=6, color=ORANGE, linestyle="none")
        if shown["low"] is not None:
            axes.plot([place + 0.2] * 2, [shown["low"], shown["high"]], color=ORANGE, linewidth=1.8)
    axes.scatter([], [], s=24, color=BLUE, alpha=0.6, label="single fold")
    axes.plot([], [], color=BLUE, linewidth=2, label="mean of folds")
    axes.plot([], [], color=ORANGE, marker="D", markersize=6, label="pooled, 95% interval")
    axes.set_xticks(range(len(names)), [METRIC_NAMES[name] for name in names])
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set(ylim=SHARE, xlim=(-0.6, len(names) - 0.4))
    axes.grid(axis="x", visible=False)
    axes.legend(loc="lower left", ncols=3, fontsize=8)
    return figure


@styled
def comparison_chart(
    runs: Mapping[str, Scores], areas: Mapping[str, Mapping[str, float]], differences: Mapping[str, Mapping[str, float]]
) -> Figure:
    """ROC of every run, AUC with interval, and difference of AUC from the first run with interval.

    areas, differences: {run: {value, low, high}}. The first run has no difference.
    """
    figure = Figure(figsize=(PAGE_WIDTH, 3.7), layout="constrained")
    curves, levels, forest = figure.subplots(1, 3, width_ratios=[1.25, 1, 1])
    curves.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2)
    for number, (name, scores) in enumerate(runs.items()):
        colour, place = COLOURS[number % len(COLOURS)], -number
        if len(set(scores.labels_S.tolist())) == 2:
            band = roc_band(scores)
            curves.fill_between(GRID, band.low_G, band.high_G, color=colour, alpha=0.12, linewidth=0)
            curves.plot([0, *GRID], [0, *band.values_G], color=colour, linewidth=2, label=name)
        for axes, shown in ((levels, areas[name]), (forest, differences.get(name))):
            if shown is None:
                axes.plot(0, place, marker="|", markersize=9, color=colour)
                continue
            axes.plot([shown["low"], shown["high"]], [place] * 2, color=colour, linewidth=2)
            axes.plot(shown["value"], place, marker="D", markersize=6, color=colour)
    curves.set(xlim=SHARE, ylim=SHARE, aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    curves.legend(loc="lower right", fontsize=8)
    first = next(iter(runs))
    for axes, title in ((levels, "AUC, 95% interval"), (forest, f"AUC minus that of {first}")):
        axes.set_yticks([-number for number in range(len(runs))], list(runs) if axes is levels else [""] * len(runs))
        axes.set(ylim=(-len(runs) + 0.4, 0.6), xlabel=title)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(axis="y", visible=False)
    forest.axvline(0, color=MUTED, linestyle=":", linewidth=1.2)
    return figure


def _labels_and_probabilities(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.label for p in predictions]), np.array([p.probability for p in predictions])
