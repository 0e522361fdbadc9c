"""Figures of one subject: reconstructions and maps, in anatomical planes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from util.inference.study import Study
from vis.drawing.planes import LEFT_LETTER, PLANES, REMOVED_TONE, cut
from vis.drawing.style import MUTED, NOTICE, PHANTOM_NOTICE, SKY, panel_page, styled
from vis.drawing.wording import CONTRAST_NAMES
from vis.maps.registry import map_kind

ERROR_MAP = "magma"
OVERLAY_ALPHA = 0.55
REMOVED_COLOUR = np.array([REMOVED_TONE * 0.92, REMOVED_TONE, REMOVED_TONE * 1.25])
# Both are colour-blind safe. The signed one is dark in the middle, so that the tissue stays visible where a map is 0.
SEQUENTIAL = "inferno"
SIGNED = LinearSegmentedColormap.from_list("sky-black-orange", [SKY, "#0072B2", "#101418", "#D55E00", "#F0B060"])
MAP_BACKGROUNDS = ("t1ce", "flair")
CAPTIONS = {"input": "input", "masked": "masked", "prediction": "decoder output", "pasted": "reconstruction",
            "error": "|error|"}  # fmt: skip
Place = tuple[int, int, int]  # (z, y, x)
BAR_WIDTH = 1.2  # inches at the right, for a colour bar and its label


@styled
def reconstruction_figure(
    study: Study,
    prediction_CZYX: np.ndarray,
    removed_ZYX: np.ndarray,
    *,
    subtitle: str,
    planes: Sequence[str] = tuple(PLANES),
    panel: float = 1.25,
) -> Figure:
    """One row per contrast. Columns for each plane: input, masked input, reconstruction, absolute error.

    The reconstruction shows visible patches from the input and removed patches from the prediction. With a single plane
    another column shows the complete output of the decoder.
    """
    pasted_CZYX = np.where(removed_ZYX, prediction_CZYX, study.volume_CZYX)
    error_CZYX = np.abs(pasted_CZYX - study.volume_CZYX)
    grey = {"input": study.grey(study.volume_CZYX), "prediction": study.grey(prediction_CZYX),
            "pasted": study.grey(pasted_CZYX)}  # fmt: skip
    kinds = ["input", "masked", *(["prediction"] if len(planes) == 1 else []), "pasted", "error"]
    errors_in_brain = error_CZYX[:, removed_ZYX & study.brain_ZYX]
    scale = Normalize(0, float(np.percentile(errors_in_brain, 99)) if errors_in_brain.size else 1.0)

    rows, columns = len(study.contrasts), len(planes) * len(kinds)
    figure, axes = panel_page(rows, columns, panel=panel, title=study.subject, subtitle=subtitle, left=0.75,
                              right=BAR_WIDTH, notice=figure_notice(study))  # fmt: skip
    for column in range(columns):
        plane, kind = planes[column // len(kinds)], kinds[column % len(kinds)]
        axis, index = PLANES[plane], study.focus[PLANES[plane]]
        removed = cut(removed_ZYX, axis, index)
        for row in range(rows):
            target = axes[row][column]
            if kind == "error":
                target.imshow(cut(error_CZYX[row], axis, index), cmap=ERROR_MAP, norm=scale, interpolation="nearest")
            elif kind == "masked":
                show_masked(target, cut(grey["input"][row], axis, index), removed)
            else:
                show_grey(target, cut(grey[kind][row], axis, index))
            if kind == "input":
                letter_side(target, plane, study)
        axes[0][column].set_title(CAPTIONS[kind], fontsize=8, fontweight="normal", loc="center", pad=3)
        if kind == "input":
            axes[0][column].annotate(plane.capitalize(), (0, 1), xytext=(0, 15), textcoords="offset points",
                                     xycoords="axes fraction", fontsize=9, fontweight="bold", color=MUTED)  # fmt: skip
    for line, contrast in zip(axes, study.contrasts, strict=True):
        line[0].set_ylabel(CONTRAST_NAMES[contrast], rotation=0, ha="right", va="center", labelpad=6)
    colour_bar(figure, axes, scale, ERROR_MAP, "absolute error (normalised intensity)")
    return figure


@styled
def map_figure(
    study: Study,
    map_ZYX: np.ndarray,
    name: str,
    *,
    subtitle: str,
    panel: float = 1.9,
    centres: Mapping[str, Place] | None = None,
) -> Figure:
    """One row per plane. Columns: the background contrasts, the same with the map overlaid, the map alone.

    The backgrounds are t1ce and flair if the study has them, else its first contrast. The colour scale covers the
    values inside the brain; the overlay is limited to the brain.

    centres: (z, y, x) that the planes go through, by description. Default: the centre of the tumour, or of the brain.
    """
    backgrounds = [c for c in MAP_BACKGROUNDS if c in study.contrasts] or [study.contrasts[0]]
    kind = map_kind(name)
    scale, colours = map_colours(map_ZYX[study.brain_ZYX], kind.signed)
    grey_CZYX = study.grey(study.volume_CZYX)
    columns = [*((c, False) for c in backgrounds), *((c, True) for c in backgrounds), (None, True)]
    notice = figure_notice(study, outline=study.segmentation_ZYX is not None)
    places = centres or {"": study.focus}
    lines = [(label, plane, place[PLANES[plane]]) for label, place in places.items() for plane in PLANES]
    figure, axes = panel_page(len(lines), len(columns), panel=panel, title=study.subject, subtitle=subtitle,
                              left=1.25 if centres else 0.85,
                              right=BAR_WIDTH, notice=notice)  # fmt: skip
    for line, (label, plane, index) in zip(axes, lines, strict=True):
        axis = PLANES[plane]
        values = cut(map_ZYX, axis, index)
        outside = cut(~study.brain_ZYX, axis, index)
        for target, (contrast, mapped) in zip(line, columns, strict=True):
            if contrast is not None:
                show_grey(target, cut(grey_CZYX[study.contrasts.index(contrast)], axis, index))
            if mapped:
                shown_values = values if contrast is None else np.ma.masked_where(outside, values)
                alpha = 1.0 if contrast is None else OVERLAY_ALPHA
                target.imshow(shown_values, cmap=colours, norm=scale, alpha=alpha, interpolation="nearest")
            draw_outline(target, study, axis, index)
        letter_side(line[0], plane, study)
        text = f"{plane.capitalize()}\n{label}" if label else plane.capitalize()
        line[0].set_ylabel(text, rotation=0, ha="right", va="center", labelpad=6, fontsize=8 if label else None)
    for target, (contrast, mapped) in zip(axes[0], columns, strict=True):
        text = "map alone" if contrast is None else CONTRAST_NAMES[contrast] + (" + map" if mapped else "")
        target.set_title(text, fontsize=9, fontweight="normal", loc="center", pad=4)
    colour_bar(figure, axes, scale, colours, f"{kind.title}\n({kind.unit})")
    return figure


def peak(study: Study, map_ZYX: np.ndarray, signed: bool) -> Place:
    """(z, y, x) of the brain voxel with the largest value of the map (signed map: largest absolute value).

    Among equal voxels, as in a patch, the one nearest to their centre.
    """
    values = np.where(study.brain_ZYX, np.abs(map_ZYX) if signed else map_ZYX, -np.inf)
    largest = np.argwhere(values == values.max())
    z, y, x = largest[((largest - largest.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(z), int(y), int(x)


def map_colours(values: np.ndarray, signed: bool) -> tuple[Normalize, Colormap]:
    """Colour scale and colour map for the values of a map inside the brain."""
    return _map_scale(values, signed), SIGNED if signed else colormaps[SEQUENTIAL]


def _map_scale(values: np.ndarray, signed: bool) -> Normalize:
    if signed:
        reach = float(np.percentile(np.abs(values), 99)) or 1.0
        return Normalize(-reach, reach)
    low, high = (float(bound) for bound in np.percentile(values, [1, 99]))
    return Normalize(low, high if high > low else low + 1)


def show_grey(target: Axes, image: np.ndarray) -> None:
    """Show grey levels in [0, 1]."""
    target.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def show_masked(target: Axes, image: np.ndarray, removed: np.ndarray) -> None:
    """Show grey levels in [0, 1], with the removed pixels in one colour."""
    coloured = image[..., None].repeat(3, axis=2)
    target.imshow(np.where(removed[..., None], REMOVED_COLOUR, coloured), interpolation="nearest")


def draw_outline(target: Axes, study: Study, axis: int, index: int) -> None:
    """Draw the outline of the tumour mask, if there is one."""
    if study.segmentation_ZYX is None:
        return
    tumour = cut(study.segmentation_ZYX > 0, axis, index)
    if tumour.any() and not tumour.all():
        target.contour(tumour.astype(float), levels=[0.5], colors=["white"], linewidths=0.9)


def letter_side(target: Axes, plane: str, study: Study) -> None:
    """Mark the side of the patient at the left edge, if the orientation is known."""
    if study.oriented:
        target.text(0.03, 0.5, LEFT_LETTER[plane], transform=target.transAxes, color="white", fontsize=7, va="center")


def colour_bar(figure: Figure, axes: Sequence[Sequence[Axes]], scale: Normalize, colours, label: str) -> None:
    """Draw a colour bar at the right of the last panel."""
    width, height = figure.get_size_inches()
    beside = axes[-1][-1].get_position()
    bar_axes = figure.add_axes((beside.x1 + 0.12 / width, beside.y0, 0.12 / width, 1.9 / height))
    bar = figure.colorbar(ScalarMappable(scale, colours), cax=bar_axes)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7, length=2)
    bar.ax.ticklabel_format(scilimits=(-2, 4))
    bar.ax.yaxis.get_offset_text().set_fontsize(7)
    bar.set_label(label, fontsize=7.5)


def figure_notice(study: Study, *, outline: bool = False) -> str:
    """The line below a figure: orientation, outline, simulated data, intended use."""
    sides = "Radiological view: R = right of the patient, A = anterior. " if study.oriented else ""
    mask = "White outline: tumour mask. " if outline else ""
    return sides + mask + (PHANTOM_NOTICE if study.phantom else "") + NOTICE
