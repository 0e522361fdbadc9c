"""Charts of training: losses and held-out AUC over epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vis.drawing.style import BLUE, GREEN, MUTED, ORANGE, PAGE_WIDTH, styled

Rows = Sequence[Mapping[str, Any]]  # of metrics.jsonl, one per epoch


@styled
def pretraining_chart(rows: Rows) -> Figure:
    """Reconstruction loss over epochs. If recorded, also the loss of the baseline: the mean of each patch."""
    figure = Figure(figsize=(PAGE_WIDTH, 3.2), layout="constrained")
    axes = figure.subplots()
    epochs, losses = series(rows, "train_loss")
    axes.plot(epochs, losses, color=BLUE, label="pre-training", marker="o" if len(epochs) < 3 else None)
    baseline_epochs, baseline = series(rows, "baseline_loss")
    if len(baseline):
        label = "baseline: mean of each patch"
        axes.plot(baseline_epochs, baseline, color=ORANGE, linestyle="--", linewidth=1.4, label=label)
    axes.set_ylabel("loss on removed patches")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper right", bbox_to_anchor=(1, 1.14), ncols=2, borderaxespad=0)
    _epoch_axis(axes)
    return figure


@styled
def fold_chart(rows_of_fold: Mapping[int, Rows]) -> Figure:
    """Training loss and held-out AUC over epochs: one thin line per fold, a thick line for their mean."""
    figure = Figure(figsize=(PAGE_WIDTH, 3.2), layout="constrained")
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


def series(rows: Rows, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Epochs, from 1, and the finite values of `key`. Rows without a value are skipped."""
    pairs = [(row["epoch"] + 1, float(row[key])) for row in rows if row.get(key) is not None]
    pairs = [(epoch, value) for epoch, value in pairs if np.isfinite(value)]
    return np.array([epoch for epoch, _ in pairs]), np.array([value for _, value in pairs])


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
