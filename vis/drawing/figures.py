"""Figures of one subject: what the autoencoder reconstructs, and where a latent map is high."""

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
from vis.maps.registry import method

ERROR_MAP = "magma"
OVERLAY_ALPHA = 0.55
REMOVED_COLOUR = np.array([REMOVED_TONE * 0.92, REMOVED_TONE, REMOVED_TONE * 1.25])
# Safe for colour-blind readers; the signed one is dark in the middle, so that 0 leaves the tissue visible.
SEQUENTIAL = "inferno"
SIGNED = LinearSegmentedColormap.from_list("sky-black-orange", [SKY, "#0072B2", "#101418", "#D55E00", "#F0B060"])
MAP_BACKGROUNDS = ("t1ce", "flair")
CAPTIONS = {"input": "input", "masked": "masked", "prediction": "decoder output", "pasted": "reconstruction",
            "error": "|error|"}  # fmt: skip
Place = tuple[int, int, int]  # (z, y, x)
BAR_WIDTH = 1.2  # inches kept free at the right for a colour bar and its text


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
    """A row per contrast; for each plane input | masked | reconstruction (pasted) | absolute error on removed patches.

    With a single plane the decoder's whole output, unpasted, gets a column of its own.
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
    """A row per plane: t1ce and flair (those present, else the first contrast), the same under the map, the map alone.

    centres: (z, y, x) that planes go through, by what stands there; default the tumour's centre or the brain's middle.
    The colours span the map's values inside the brain; outside the brain the overlay is left out, the map alone is not.
    """
    backgrounds = [c for c in MAP_BACKGROUNDS if c in study.contrasts] or [study.contrasts[0]]
    shown = method(name)
    scale, colours = map_colours(map_ZYX[study.brain_ZYX], shown.signed)
    grey_CZYX = study.grey(study.volume_CZYX)
    columns = [*((c, False) for c in backgrounds), *((c, True) for c in backgrounds), (None, True)]
    notice = figure_notice(study, outline=study.segmentation_ZYX is not None)
    places = centres or {"": study.focus}
    lines = [(what, plane, place[PLANES[plane]]) for what, place in places.items() for plane in PLANES]
    figure, axes = panel_page(len(lines), len(columns), panel=panel, title=study.subject, subtitle=subtitle,
                              left=1.25 if centres else 0.85,
                              right=BAR_WIDTH, notice=notice)  # fmt: skip
    for line, (what, plane, index) in zip(axes, lines, strict=True):
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
        label = f"{plane.capitalize()}\n{what}" if what else plane.capitalize()
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6, fontsize=8 if what else None)
    for target, (contrast, mapped) in zip(axes[0], columns, strict=True):
        text = "map alone" if contrast is None else CONTRAST_NAMES[contrast] + (" + map" if mapped else "")
        target.set_title(text, fontsize=9, fontweight="normal", loc="center", pad=4)
    colour_bar(figure, axes, scale, colours, f"{shown.title}\n({shown.unit})")
    return figure


def peak(study: Study, map_ZYX: np.ndarray, signed: bool) -> Place:
    """(z, y, x) of the brain's voxel where the map is largest (a signed one: farthest from 0); of several equal ones,
    as in a patch, the one nearest their centre."""
    values = np.where(study.brain_ZYX, np.abs(map_ZYX) if signed else map_ZYX, -np.inf)
    largest = np.argwhere(values == values.max())
    z, y, x = largest[((largest - largest.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(z), int(y), int(x)


def map_colours(values: np.ndarray, signed: bool) -> tuple[Normalize, Colormap]:
    """Scale and colours for a map, from its values inside the brain."""
    return _map_scale(values, signed), SIGNED if signed else colormaps[SEQUENTIAL]


def _map_scale(values: np.ndarray, signed: bool) -> Normalize:
    if signed:
        reach = float(np.percentile(np.abs(values), 99)) or 1.0
        return Normalize(-reach, reach)
    low, high = (float(bound) for bound in np.percentile(values, [1, 99]))
    return Normalize(low, high if high > low else low + 1)


def show_grey(target: Axes, image: np.ndarray) -> None:
    target.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def show_masked(target: Axes, image: np.ndarray, removed: np.ndarray) -> None:
    """A grey image whose removed pixels are of one colour that tissue has not."""
    coloured = image[..., None].repeat(3, axis=2)
    target.imshow(np.where(removed[..., None], REMOVED_COLOUR, coloured), interpolation="nearest")


def draw_outline(target: Axes, study: Study, axis: int, index: int) -> None:
    if study.segmentation_ZYX is None:
        return
    tumour = cut(study.segmentation_ZYX > 0, axis, index)
    if tumour.any() and not tumour.all():
        target.contour(tumour.astype(float), levels=[0.5], colors=["white"], linewidths=0.9)


def letter_side(target: Axes, plane: str, study: Study) -> None:
    if study.oriented:
        target.text(0.03, 0.5, LEFT_LETTER[plane], transform=target.transAxes, color="white", fontsize=7, va="center")


def colour_bar(figure: Figure, axes: Sequence[Sequence[Axes]], scale: Normalize, colours, label: str) -> None:
    """A bar beside the lowest right panel, drawn opaque."""
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
    sides = "Radiological view: R = patient's right, A = anterior. " if study.oriented else ""
    mask = "White outline: tumour mask. " if outline else ""
    return sides + mask + (PHANTOM_NOTICE if study.phantom else "") + NOTICE
