"""Figures of many slices: a map of the whole brain, reconstructions by mask ratio, mean maps per class."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from util.inference.study import Study
from vis.drawing.figures import (
    BAR_WIDTH,
    OVERLAY_ALPHA,
    colour_bar,
    draw_outline,
    figure_notice,
    letter_side,
    map_colours,
    show_grey,
    show_masked,
)
from vis.drawing.planes import PLANES, cut
from vis.drawing.style import panel_page, styled
from vis.drawing.wording import CONTRAST_NAMES
from vis.maps.registry import map_kind

COLUMNS = 6
PREFERRED = ("flair", "t1ce", "t2")  # backgrounds of a map, the best first


def background(contrasts: tuple[str, ...]) -> str:
    """The contrast under a map in figures with a single background."""
    return next((name for name in PREFERRED if name in contrasts), contrasts[0])


@styled
def mosaic_figure(
    study: Study, map_ZYX: np.ndarray, name: str, *, subtitle: str, rows: int = 4, panel: float = 1.25
) -> Figure:
    """Evenly spaced axial slices of the whole brain, with the map overlaid and the tumour outlined."""
    kind, contrast = map_kind(name), background(study.contrasts)
    scale, colours = map_colours(map_ZYX[study.brain_ZYX], kind.signed)
    grey_ZYX = study.grey(study.volume_CZYX)[study.contrasts.index(contrast)]
    occupied = np.flatnonzero(study.brain_ZYX.any(axis=(1, 2)))
    count = rows * COLUMNS
    # The first and the last slice of the brain are nearly empty.
    slices = np.linspace(occupied[0], occupied[-1], count + 2).round().astype(int)[1:-1]
    figure, axes = panel_page(
        rows, COLUMNS, panel=panel, title=study.subject, left=0.3, right=BAR_WIDTH,
        subtitle=f"{subtitle} · background {CONTRAST_NAMES[contrast]}",
        notice=figure_notice(study, outline=study.segmentation_ZYX is not None),
    )  # fmt: skip
    for target, index in zip([axis for line in axes for axis in line], slices, strict=True):
        index = int(index)
        target.imshow(cut(grey_ZYX, 0, index), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        values = np.ma.masked_where(cut(~study.brain_ZYX, 0, index), cut(map_ZYX, 0, index))
        target.imshow(values, cmap=colours, norm=scale, alpha=OVERLAY_ALPHA, interpolation="nearest")
        draw_outline(target, study, 0, index)
        target.text(0.03, 0.04, f"z {index}", transform=target.transAxes, color="white", fontsize=6)
    colour_bar(figure, axes, scale, colours, f"{kind.title}\n({kind.unit})")
    return figure


@styled
def ratio_figure(
    study: Study,
    reconstructions: Mapping[float, tuple[np.ndarray, np.ndarray, float]],
    *,
    subtitle: str,
    panel: float = 1.25,
) -> Figure:
    """The input, then one row per mask ratio: for each contrast the visible patches and the reconstruction.

    The plane is axial, through the centre of the tumour.

    reconstructions: by ratio, the volume (C, Z, Y, X) with removed patches replaced by the prediction, the removed
    voxels (Z, Y, X), and the loss over removed patches.
    """
    axis = PLANES["axial"]
    index = study.focus[axis]
    seen_CZYX = study.grey(study.volume_CZYX)
    figure, axes = panel_page(
        1 + len(reconstructions), 2 * len(study.contrasts), panel=panel, title=study.subject, subtitle=subtitle,
        left=1.25, right=0.2, notice=figure_notice(study),
    )  # fmt: skip
    for column, (contrast, seen_ZYX) in enumerate(zip(study.contrasts, seen_CZYX, strict=True)):
        show_grey(axes[0][2 * column], cut(seen_ZYX, axis, index))
        axes[0][2 * column].set_title(CONTRAST_NAMES[contrast], fontsize=9, fontweight="normal", loc="center", pad=4)
        axes[0][2 * column + 1].set_visible(False)
        letter_side(axes[0][2 * column], "axial", study)
    axes[0][0].set_ylabel("input", rotation=0, ha="right", va="center", labelpad=6)
    for line, (ratio, (pasted_CZYX, removed_ZYX, loss)) in zip(axes[1:], sorted(reconstructions.items()), strict=True):
        removed = cut(removed_ZYX, axis, index)
        for column, (seen_ZYX, pasted_ZYX) in enumerate(zip(seen_CZYX, study.grey(pasted_CZYX), strict=True)):
            show_masked(line[2 * column], cut(seen_ZYX, axis, index), removed)
            show_grey(line[2 * column + 1], cut(pasted_ZYX, axis, index))
        line[0].set_ylabel(f"{ratio:.0%} removed\nloss {loss:.3f}", rotation=0, ha="right", va="center", labelpad=6,
                           fontsize=8)  # fmt: skip
    return figure


@styled
def class_means_figure(
    classes: Mapping[str, tuple[Study, np.ndarray]], name: str, *, subtitle: str, panel: float = 1.9
) -> Figure:
    """One row per class: the mean map (Z, Y, X) on the mean volume of the class, in three planes through the centre.

    The classes share one colour scale. The brains are aligned by their bounding boxes only, as prepared.
    """
    kind = map_kind(name)
    everything = np.concatenate([map_ZYX[study.brain_ZYX] for study, map_ZYX in classes.values()])
    scale, colours = map_colours(everything, kind.signed)
    first = next(iter(classes.values()))[0]
    figure, axes = panel_page(len(classes), len(PLANES), panel=panel, title="Mean map per class", subtitle=subtitle,
                              left=1.5, right=BAR_WIDTH, notice=figure_notice(first))  # fmt: skip
    for line, (label, (study, map_ZYX)) in zip(axes, classes.items(), strict=True):
        grey_ZYX = study.grey(study.volume_CZYX)[study.contrasts.index(background(study.contrasts))]
        for target, (plane, axis) in zip(line, PLANES.items(), strict=True):
            index = study.focus[axis]
            target.imshow(cut(grey_ZYX, axis, index), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            values = np.ma.masked_where(cut(~study.brain_ZYX, axis, index), cut(map_ZYX, axis, index))
            target.imshow(values, cmap=colours, norm=scale, alpha=OVERLAY_ALPHA, interpolation="nearest")
            if line is axes[0]:
                target.set_title(plane.capitalize(), fontsize=9, fontweight="normal", loc="center", pad=4)
            letter_side(target, plane, study)
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
    colour_bar(figure, axes, scale, colours, f"{kind.title}\n({kind.unit})")
    return figure
