"""Charts of the report: training curves, ROC, confusion matrix, held-out probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix, roc_curve

from util.evaluation.predictions import Prediction, arrange
from util.statistics.bootstrap import point_metrics
from util.statistics.curves import GRID, roc_band
from vis.drawing.style import BLUE, GREEN, INK, MUTED, ORANGE, RULE, styled

Rows = Sequence[Mapping[str, Any]]  # of a metrics.jsonl, one per epoch
PAGE = 10.58  # inches of the report's text width


@styled
def pretraining_chart(rows: Rows) -> Figure:
    """Reconstruction loss over epochs, with the loss of predicting each patch's mean where it was recorded."""
    figure = Figure(figsize=(PAGE, 3.2), layout="constrained")
    axes = figure.subplots()
    epochs, losses = series(rows, "train_loss")
    axes.plot(epochs, losses, color=BLUE, label="pre-training", marker="o" if len(epochs) < 3 else None)
    baseline_epochs, baseline = series(rows, "baseline_loss")
    if len(baseline):
        label = "predicting each patch's mean"
        axes.plot(baseline_epochs, baseline, color=ORANGE, linestyle="--", linewidth=1.4, label=label)
    axes.set_ylabel("loss on removed patches")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 1.14), ncols=2, borderaxespad=0)
    _epoch_axis(axes)
    return figure


@styled
def fold_chart(rows_of_fold: Mapping[int, Rows]) -> Figure:
    """Training loss and held-out AUC over epochs: a thin line per fold, thick their mean."""
    figure = Figure(figsize=(PAGE, 3.2), layout="constrained")
    panels = (("train_loss", "training loss", BLUE), ("test_auc", "AUC on held-out subjects", GREEN))
    for axes, (key, label, colour) in zip(figure.subplots(1, 2), panels, strict=True):
        values: dict[int, list[float]] = {}
        for rows in rows_of_fold.values():
            epochs, scores = series(rows, key)
            axes.plot(epochs, scores, color=colour, linewidth=0.8, alpha=0.5)
            for epoch, score in zip(epochs.tolist(), scores.tolist(), strict=True):
                values.setdefault(int(epoch), []).append(score)
        means = {epoch: float(np.mean(scores)) for epoch, scores in sorted(values.items())}
        axes.plot(list(means), list(means.values()), color=colour, linewidth=2.4)
        axes.set_ylabel(label)
        _epoch_axis(axes)
        if key == "test_auc":
            axes.axhline(0.5, color=MUTED, linestyle=":", linewidth=1)
            axes.set_ylim(0, 1.02)
        else:
            axes.set_ylim(bottom=0)
    return figure


@styled
def roc_chart(predictions: Sequence[Prediction]) -> Figure:
    """ROC of each fold (thin), of all folds pooled (thick, with the middle 95% over resampled patients) and of chance
    (dotted). Folds with one class have none; repeats of a cross-validation are averaged."""
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.2, label="chance")
    for fold in sorted({p.fold for p in predictions}):
        labels, scores = _arrays([p for p in predictions if p.fold == fold])
        if len(set(labels.tolist())) == 2:
            false_rate, true_rate, _ = roc_curve(labels, scores)
            axes.plot(false_rate, true_rate, color=BLUE, linewidth=0.9, alpha=0.45)
    everyone = arrange(predictions)
    if len(set(everyone.labels_S.tolist())) == 2:
        band, area = roc_band(everyone), point_metrics(everyone)["auc"]
        label = "95% band over resampled patients"
        axes.fill_between(GRID, band.low_G, band.high_G, color=BLUE, alpha=0.13, linewidth=0, label=label)
        false_rate, true_rate = [0, *GRID], [0, *band.values_G]
        if len(everyone.probabilities_RS) == 1:  # the exact steps
            false_rate, true_rate, _ = roc_curve(everyone.labels_S, everyone.probabilities_RS[0])
        axes.plot(false_rate, true_rate, color=BLUE, linewidth=2.6, label=f"all folds pooled, AUC {area:.3f}")
    axes.plot([], [], color=BLUE, linewidth=0.9, alpha=0.45, label="single folds")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel="1 - specificity", ylabel="sensitivity")
    axes.legend(loc="lower right", fontsize=8)
    return figure


@styled
def confusion_chart(predictions: Sequence[Prediction], names: Sequence[str]) -> Figure:
    """Counts of the pooled held-out decisions, each at its fold's threshold, shaded by share of the true class."""
    labels, scores = _arrays(predictions)
    called = scores >= np.array([p.threshold for p in predictions])
    counts = confusion_matrix(labels, called, labels=[0, 1])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(4.4, 4.2), layout="constrained")
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
    """Every held-out subject as a dot: predicted probability of class 1, a row per true class."""
    figure = Figure(figsize=(PAGE, 2.0), layout="constrained")
    axes = figure.subplots()
    for threshold in sorted({p.threshold for p in predictions}):
        axes.axvline(threshold, color=MUTED, linestyle=":", linewidth=1.2)
    for label, colour in ((0, BLUE), (1, ORANGE)):
        scores = np.array([p.probability for p in sorted(predictions) if p.label == label])
        spread = (np.arange(len(scores)) * 0.618034) % 1 - 0.5  # even, without randomness
        axes.scatter(scores, label + 0.5 * spread, s=22, color=colour, alpha=0.7, edgecolors="white", linewidths=0.5)
    axes.set_yticks([0, 1], [f"true: {name}" for name in names])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.5, 1.5), xlabel=f"predicted probability of {names[1]}")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_color(RULE)
    return figure


def series(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, counted from 1, and finite values of `key`; rows without it are passed over."""
    pairs = [(row["epoch"] + 1, float(row[key])) for row in rows if row.get(key) is not None]
    pairs = [(epoch, value) for epoch, value in pairs if np.isfinite(value)]
    return np.array([epoch for epoch, _ in pairs]), np.array([value for _, value in pairs])


def _arrays(predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p.label for p in predictions]), np.array([p.probability for p in predictions])


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
