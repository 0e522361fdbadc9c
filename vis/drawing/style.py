"""The style of all figures: colour-blind safe palette (Okabe-Ito), fonts, page layout, PNG files."""

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from util.files.atomic import atomic_write
from util.patient.who_2021 import NOTICE as NOTICE

INK, MUTED, RULE = "#1b1f24", "#5b6570", "#d5dae0"
BLUE, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#8C5B96", "#56B4E9"
PAGE_WIDTH = 10.58  # inches: the width of the text in a report
PHANTOM_NOTICE = "Simulated phantom, not a patient. "

RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # part of matplotlib, so that figures are the same on every machine
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # "$" in the name of a subject does not start a formula
    "savefig.dpi": 150,
}

styled = mpl.rc_context(RC)
"""Decorator: draw in this style, independent of the matplotlib settings of the caller."""


@styled
def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG file in memory."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def save_png(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically."""
    content = png_bytes(figure)
    with atomic_write(path) as file:
        file.write(content)


def panel_page(
    rows: int, columns: int, *, panel: float, title: str, subtitle: str, notice: str, left: float, right: float
) -> tuple[Figure, list[list[Axes]]]:
    """A page of rows x columns square image panels, with title and subtitle above and notice below.

    panel: side of a panel in inches. left, right: margins in inches.
    """
    top, bottom, gap = 0.98, 0.34, 0.06
    width = left + columns * panel + (columns - 1) * gap + right
    height = top + rows * panel + (rows - 1) * gap + bottom
    figure = Figure(figsize=(width, height))
    figure.text(left / width, 1 - 0.22 / height, title, fontsize=12, fontweight="bold", va="center")
    figure.text(left / width, 1 - 0.46 / height, subtitle, fontsize=9, color=MUTED, va="center")
    figure.text(left / width, 0.13 / height, notice, fontsize=7.5, color=MUTED, va="center")
    axes = []
    for row in range(rows):
        y = height - top - (row + 1) * panel - row * gap
        axes.append(
            [
                figure.add_axes(((left + column * (panel + gap)) / width, y / height, panel / width, panel / height))
                for column in range(columns)
            ]
        )
    for axis in [axis for line in axes for axis in line]:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        axis.set_facecolor("black")
        for spine in axis.spines.values():
            spine.set_visible(False)
    return figure, axes
