"""The quality-control picture of a prepared subject: three planes of each contrast with the outline of the tumour."""

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PANEL_INCHES, TITLE_INCHES = 2.2, 0.3  # side of a panel, and height of the contrasts' names
NAME_SIZE, NOTE_SIZE = 10, 8  # points
WIDEST = 0.7  # mean width of a wide line's characters, in their height
PLANES = ("axial", "coronal", "sagittal")  # a slice of axis 0, 1, 2 of (Z, Y, X)

# Left, right, top and bottom of a panel of each plane, as _slice turns it.
LETTERS = ("RLAP", "RLSI", "APSI")
LETTER_PLACES = ((0.04, 0.5), (0.96, 0.5), (0.5, 0.96), (0.5, 0.04))


def qc_picture(
    subject: str, volumes: Mapping[str, np.ndarray], segmentation: np.ndarray | None, notes: Sequence[str] = ()
) -> bytes:
    """A PNG of the slices with the largest area of the tumour, or of the brain if there is no segmentation.

    volumes: uint8 (Z, Y, X) by contrast; notes: a paragraph each above the picture.
    The radiological convention is used: the patient's left is on the right.
    """
    target = segmentation if segmentation is not None and segmentation.any() else next(iter(volumes.values()))
    places = [_fullest_slice(target, axis) for axis in range(3)]
    width = PANEL_INCHES * len(volumes)
    name = _wrapped([subject], width, NAME_SIZE)
    text = _wrapped(notes, width, NOTE_SIZE)
    name_inches, text_inches = len(name) * _line(NAME_SIZE), len(text) * _line(NOTE_SIZE)
    header = name_inches + text_inches + TITLE_INCHES
    height = PANEL_INCHES * len(PLANES) + header
    figure = Figure(figsize=(width, height), facecolor="black")
    FigureCanvasAgg(figure)  # without pyplot, whose global state does not suit worker processes
    axes = figure.subplots(
        len(PLANES),
        len(volumes),
        squeeze=False,
        gridspec_kw={
            "left": 0.03,
            "right": 0.99,
            "bottom": 0.01,
            "top": 1 - header / height,
            "wspace": 0.02,
            "hspace": 0.03,
        },
    )
    for column, (contrast, volume) in enumerate(volumes.items()):
        axes[0, column].set_title(contrast, color="white")
        for axis, place in enumerate(places):
            panel = axes[axis, column]
            panel.imshow(_slice(volume, axis, place), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            panel.axis("off")
            for letter, (x, y) in zip(LETTERS[axis], LETTER_PLACES, strict=True):
                panel.text(x, y, letter, color="0.7", fontsize=7, ha="center", va="center", transform=panel.transAxes)
            if segmentation is not None and (outline := _slice(segmentation, axis, place) > 0).any():
                panel.contour(outline, levels=[0.5], colors="#ffb000", linewidths=0.8)
    for axis, (plane, place) in enumerate(zip(PLANES, places)):
        axes[axis, 0].text(
            -0.02,
            0.5,
            f"{plane} {place}",
            color="white",
            rotation=90,
            va="center",
            ha="right",
            transform=axes[axis, 0].transAxes,
            fontsize=8,
        )
    # parse_math=False: the name "A_$1$" is no formula
    style: dict[str, Any] = {"color": "white", "ha": "center", "va": "top", "parse_math": False}
    figure.text(0.5, 1 - 0.05 / height, "\n".join(name), fontsize=NAME_SIZE, **style)
    figure.text(0.5, 1 - (0.05 + name_inches) / height, "\n".join(text), fontsize=NOTE_SIZE, **style)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _wrapped(paragraphs: Sequence[str], width: float, points: float) -> list[str]:
    """Lines that fit into `width` inches."""
    characters = max(8, int(width * 72 / points / WIDEST))
    return [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, characters)]


def _line(points: float) -> float:
    """Height of a line in inches."""
    return 1.25 * points / 72


def _fullest_slice(volume: np.ndarray, axis: int) -> int:
    """Index of the slice with the most non-zero voxels."""
    return int((volume > 0).sum(axis=tuple(other for other in range(3) if other != axis)).argmax())


def _slice(volume: np.ndarray, axis: int, place: int) -> np.ndarray:
    """One slice with superior or anterior at the top, and the patient's right or anterior on the left."""
    plane = volume.take(place, axis=axis)[::-1]
    return plane[:, ::-1]
