"""Charts of the truth check: how well each map finds the tumour, erasure curves' areas, maps of randomised weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vis.drawing.style import BLUE, GREEN, INK, MUTED, NOTICE, ORANGE, PHANTOM_NOTICE, PURPLE, SKY, styled

PAGE = 10.58  # inches of the report's text width
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, INK)
LINES = ("-", "--", ":")
STAGES = ("trained", "head", "last block", "upper half", "everything")


@styled
def truth_chart(
    table: Sequence[Mapping[str, Any]], similarities: Sequence[Mapping[str, Any]], *, phantom: bool = False
) -> Figure:
    """Left: tumour AUC per map with intervals. Middle: erasure against random order. Right: randomised weights."""
    height = 2.2 + 0.27 * len(table)
    figure = Figure(figsize=(PAGE, height), layout="constrained")
    auc, gain, cascade = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    colours = [MUTED if entry["trivial"] else BLUE if entry["verdict"] == "passes" else ORANGE for entry in table]
    _dots(auc, [entry["auc"] for entry in table], colours)
    auc.set_yticks(range(len(table)), [entry["method"] for entry in table])
    auc.axvline(0.5, color=MUTED, linestyle=":", linewidth=1)
    auc.set_xlim(0, 1)
    auc.set_title("Tumour AUC")
    auc.set_xlabel("grey: trivial, blue: passes, orange: fails")
    _dots(gain, [entry["deletion_gain"] for entry in table], [GREEN] * len(table), offset=-0.14)
    _dots(gain, [entry["insertion_gain"] for entry in table], [BLUE] * len(table), offset=0.14)
    gain.set_yticks(range(len(table)), [])
    gain.axvline(0, color=MUTED, linestyle=":", linewidth=1)
    gain.set_title("Erasure, better than random")
    gain.set_xlabel("area; green: deletion, blue: insertion")
    _cascade(cascade, similarities)
    if similarities:
        figure.legend(handles=cascade.get_lines(), loc="outside lower right", ncols=5, fontsize=6.5, handlelength=2.5)
    figure.text(0.005, 0.004, (PHANTOM_NOTICE if phantom else "") + NOTICE, fontsize=7, color=MUTED)
    figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    return figure


def _dots(
    axes: Axes, intervals: Sequence[tuple[float, float, float] | None], colours: Sequence[str], offset=0.0
) -> None:
    for row, (found, colour) in enumerate(zip(intervals, colours, strict=True)):
        if found is not None:
            mean, low, high = found
            axes.plot([low, high], [row + offset] * 2, color=colour, linewidth=1.4)
            axes.plot([mean], [row + offset], marker="o", markersize=4, color=colour)
    axes.set_ylim(len(intervals) - 0.5, -0.5)


def _cascade(axes: Axes, similarities: Sequence[Mapping[str, Any]]) -> None:
    """Mean absolute rank correlation with the trained model's map by stage, a line per reading of a map."""
    axes.set_title("Similarity, weights randomised")
    for number, name in enumerate(dict.fromkeys(found["method"] for found in similarities)):
        means = [1.0]
        for stage in STAGES[1:]:
            mine = [found for found in similarities if (found["method"], found["stage"]) == (name, stage)]
            means.append(float(np.mean([abs(found["similarity"]) for found in mine])))
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        axes.plot(range(len(STAGES)), means, marker=".", linewidth=1, label=name, color=colour, linestyle=line)
    axes.set_xticks(range(len(STAGES)), STAGES, rotation=35, ha="right")
    axes.set_ylim(0, 1.02)
