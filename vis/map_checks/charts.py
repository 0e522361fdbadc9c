"""The chart of the map checks: tumour AUC, deletion and insertion, similarity to maps of randomised weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vis.drawing.style import BLUE, GREEN, INK, MUTED, NOTICE, ORANGE, PAGE_WIDTH, PHANTOM_NOTICE, PURPLE, SKY, styled

COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, INK)
LINES = ("-", "--", ":")
STAGES = ("trained", "head", "last block", "upper half", "everything")


@styled
def map_check_chart(
    table: Sequence[Mapping[str, Any]], similarities: Sequence[Mapping[str, Any]], *, phantom: bool = False
) -> Figure:
    """Left: tumour AUC per map variant. Middle: deletion and insertion against random order. Right: randomised weights.

    table: entries of summarise_scores. similarities: of SubjectResult, for all subjects.
    """
    height = 2.2 + 0.27 * len(table)
    figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
    auc, gain, random = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    colours = [MUTED if entry["trivial"] else BLUE if entry["verdict"] == "passes" else ORANGE for entry in table]
    _dots(auc, [entry["auc"] for entry in table], colours)
    auc.set_yticks(range(len(table)), [entry["method"] for entry in table])
    auc.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
    auc.set_xlim(0, 1)
    auc.set_title("Tumour AUC")
    auc.set_xlabel("grey: trivial map, blue: passes, orange: fails")
    _dots(gain, [entry["deletion_gain"] for entry in table], [GREEN] * len(table), offset=-0.14)
    _dots(gain, [entry["insertion_gain"] for entry in table], [BLUE] * len(table), offset=0.14)
    gain.set_yticks(range(len(table)), [])
    gain.axvline(0, color=MUTED, linestyle=":", linewidth=1)
    gain.set_title("Gain over random order")
    gain.set_xlabel("area (green: deletion, blue: insertion)")
    _randomisation(random, similarities)
    if similarities:
        figure.legend(handles=random.get_lines(), loc="outside lower right", ncols=5, fontsize=6.5, handlelength=2.5)
    figure.text(0.005, 0.004, (PHANTOM_NOTICE if phantom else "") + NOTICE, fontsize=7, color=MUTED)
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    return figure


def _dots(
    axes: Axes, intervals: Sequence[tuple[float, float, float] | None], colours: Sequence[str], offset=0.0
) -> None:
    """Means as dots with their intervals, one row each."""
    for row, (interval, colour) in enumerate(zip(intervals, colours, strict=True)):
        if interval is not None:
            mean, low, high = interval
            axes.plot([low, high], [row + offset] * 2, color=colour, linewidth=1.4)
            axes.plot([mean], [row + offset], marker="o", markersize=4, color=colour)
    axes.set_ylim(len(intervals) - 0.5, -0.5)


def _randomisation(axes: Axes, similarities: Sequence[Mapping[str, Any]]) -> None:
    """Mean absolute rank correlation with the map of the trained model, by stage; one line per map variant."""
    axes.set_title("Similarity, weights randomised")
    axes.set_ylabel("rank correlation")
    for number, name in enumerate(dict.fromkeys(row["method"] for row in similarities)):
        means = [1.0]
        for stage in STAGES[1:]:
            values = [abs(row["similarity"]) for row in similarities if (row["method"], row["stage"]) == (name, stage)]
            means.append(float(np.mean(values)))
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        axes.plot(range(len(STAGES)), means, marker=".", linewidth=1, label=name, color=colour, linestyle=line)
    axes.set_xticks(range(len(STAGES)), STAGES, rotation=35, ha="right")
    axes.set_ylim(0, 1.02)
