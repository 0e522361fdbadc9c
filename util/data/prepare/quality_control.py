"""The quality-control picture of a prepared subject: three planes of each contrast with the outline of the tumour."""

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PLANES = ("axial", "coronal", "sagittal")  # a slice of axis 0, 1, 2 of (Z, Y, X)


def qc_picture(
    subject: str, volumes: Mapping[str, np.ndarray], segmentation: np.ndarray | None, notes: str = ""
) -> bytes:
    """A PNG of the slices with the largest area of the tumour, or of the brain if there is no segmentation.

    volumes: uint8 (Z, Y, X) by contrast. The radiological convention is used: the patient's left is on the right.
    """
    target = segmentation if segmentation is not None and segmentation.any() else next(iter(volumes.values()))
    places = [_fullest_slice(target, axis) for axis in range(3)]
    figure = Figure(figsize=(2.2 * len(volumes), 2.2 * len(PLANES) + 0.5), facecolor="black")
    FigureCanvasAgg(figure)  # without pyplot, whose global state does not suit worker processes
    axes = figure.subplots(
        len(PLANES),
        len(volumes),
        squeeze=False,
        gridspec_kw={"left": 0.03, "right": 0.99, "bottom": 0.01, "top": 0.91, "wspace": 0.02, "hspace": 0.03},
    )
    for column, (contrast, volume) in enumerate(volumes.items()):
        axes[0, column].set_title(contrast, color="white")
        for axis, place in enumerate(places):
            panel = axes[axis, column]
            panel.imshow(_slice(volume, axis, place), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            panel.axis("off")
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
    figure.suptitle(f"{subject}  {notes}".strip(), color="white", fontsize=10, parse_math=False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _fullest_slice(volume: np.ndarray, axis: int) -> int:
    """Index of the slice with the most non-zero voxels."""
    return int((volume > 0).sum(axis=tuple(other for other in range(3) if other != axis)).argmax())


def _slice(volume: np.ndarray, axis: int, place: int) -> np.ndarray:
    """One slice with superior or anterior at the top, and the patient's right or anterior on the left."""
    plane = volume.take(place, axis=axis)[::-1]
    return plane[:, ::-1]
