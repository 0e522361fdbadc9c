"""Charts of an evaluation: precision and recall, calibration, metrics fold by fold, runs beside each other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from util.statistics.curves import GRID, reliability, roc_band
from util.statistics.scores import Scores
from vis.drawing.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SKY, styled
from vis.drawing.wording import METRIC_NAMES

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
DOTTED = ("auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "sensitivity", "specificity")
SQUARE = (4.4, 4.2)
PAGE = 10.58  # inches of the report's text width
SHARE = (-0.02, 1.02)


@styled
def precision_recall_chart(scores: Scores) -> Figure:
    """Precision over recall: thin a fold, thick all folds pooled, dotted the share of class 1: a guess at random."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes = figure.subplots()
    share = float(scores.labels_S.mean())
    axes.axhline(share, color=MUTED, linestyle=":", linewidth=1.2, label=f"share of class 1, {share:.2f}")
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
    """Observed share of class 1 against the predicted probability, in groups of equal size with exact 95% intervals."""
    figure = Figure(figsize=SQUARE, layout="constrained")
    axes, counts = figure.subplots(2, 1, height_ratios=[5, 1], sharex=True)
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2, label="perfectly calibrated")
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
    """Metrics of every fold as dots, their mean as a bar, and the pooled value with its interval where there is one."""
    figure = Figure(figsize=(PAGE, 2.9), layout="constrained")
    axes = figure.subplots()
    names = [name for name in DOTTED if name in results["pooled"]]
    pooled = results.get("statistics", {}).get("pooled", {})
    for place, name in enumerate(names):
        values = [row[name] for row in results["per_fold"] if row.get(name) is not None]
        spread = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.22  # even, without randomness
        axes.scatter(place - 0.16 + spread, values, s=24, color=BLUE, alpha=0.6, edgecolors="white", linewidths=0.5)
        if results["mean"].get(name) is not None:
            axes.plot([place - 0.32, place], [results["mean"][name]] * 2, color=BLUE, linewidth=2)
        shown = pooled.get(name, {"value": results["pooled"][name], "low": None, "high": None})
        if shown["value"] is not None:
            axes.plot(place + 0.2, shown["value"], marker="D", markersize=6, color=ORANGE, linestyle="none")
        if shown["low"] is not None:
            axes.plot([place + 0.2] * 2, [shown["low"], shown["high"]], color=ORANGE, linewidth=1.8)
    axes.scatter([], [], s=24, color=BLUE, alpha=0.6, label="a fold")
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
    """ROC of every run; AUC with interval; difference of AUC to the first run with interval.

    areas, differences: {run: {value, low, high}}, the first run has no difference.
    """
    figure = Figure(figsize=(PAGE, 3.7), layout="constrained")
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
