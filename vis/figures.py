"""Figures of one subject: what the autoencoder reconstructs, and where a latent map is high."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from vis.display import LEFT_LETTER, PLANES, REMOVED_TONE, Study, cut
from vis.maps import MAPS
from vis.style import INK, MUTED, NOTICE, PHANTOM_NOTICE, SKY, panel_page, styled
from vis.terms import CONTRAST_NAMES

ERROR_MAP = "magma"
OVERLAY_ALPHA = 0.55
REMOVED_COLOUR = np.array([REMOVED_TONE * 0.92, REMOVED_TONE, REMOVED_TONE * 1.25])
# Safe for colour-blind readers; the signed one is dark in the middle, so that 0 leaves the tissue visible.
SEQUENTIAL = "inferno"
SIGNED = LinearSegmentedColormap.from_list("sky-black-orange", [SKY, "#0072B2", "#101418", "#D55E00", "#F0B060"])
MAP_BACKGROUNDS = ("t1ce", "flair")
CAPTIONS = {"input": "input", "masked": "masked", "prediction": "decoder output", "pasted": "reconstruction",
            "error": "|error|"}  # fmt: skip
BAR_WIDTH = 1.05  # inches kept free at the right for a colour bar and its text


@styled
def reconstruction_figure(
    study: Study,
    prediction_CZYX: np.ndarray,
    removed_ZYX: np.ndarray,
    *,
    title: str,
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
    figure, axes = panel_page(rows, columns, panel=panel, title=title, notice=_notice(study), right=BAR_WIDTH)
    for column in range(columns):
        plane, kind = planes[column // len(kinds)], kinds[column % len(kinds)]
        axis, index = PLANES[plane], study.focus[PLANES[plane]]
        removed = cut(removed_ZYX, axis, index)
        for row in range(rows):
            target = axes[row][column]
            if kind == "error":
                target.imshow(cut(error_CZYX[row], axis, index), cmap=ERROR_MAP, norm=scale, interpolation="nearest")
            elif kind == "masked":
                image = cut(grey["input"][row], axis, index)[..., None].repeat(3, axis=2)
                target.imshow(np.where(removed[..., None], REMOVED_COLOUR, image), interpolation="nearest")
            else:
                _show_grey(target, cut(grey[kind][row], axis, index))
            if kind == "input":
                _letter(target, plane, study)
        axes[0][column].set_title(CAPTIONS[kind], fontsize=8, fontweight="normal", loc="center", pad=3)
        if kind == "input":
            axes[0][column].annotate(plane.capitalize(), (0, 1), xytext=(0, 15), textcoords="offset points",
                                     xycoords="axes fraction", fontsize=9, fontweight="bold", color=MUTED)  # fmt: skip
    _name_rows(axes, study.contrasts)
    _colour_bar(figure, axes, scale, ERROR_MAP, "absolute error (normalised intensity)")
    return figure


@styled
def map_figure(study: Study, map_ZYX: np.ndarray, name: str, *, title: str, panel: float = 1.9) -> Figure:
    """Three planes of a latent map over t1ce and flair (those present, else the first contrast), and the map alone.

    The colours span the map's values inside the brain; outside the brain the overlay is left out, the map alone is not.
    """
    backgrounds = [c for c in MAP_BACKGROUNDS if c in study.contrasts] or [study.contrasts[0]]
    signed = MAPS[name].signed
    scale, colours = _map_scale(map_ZYX[study.brain_ZYX], signed), SIGNED if signed else SEQUENTIAL
    grey_CZYX = study.grey(study.volume_CZYX)
    labels = [*backgrounds, *(f"{c} + map" for c in backgrounds), "map alone"]
    rows = 1 + 2 * len(backgrounds)
    notice = _notice(study)
    figure, axes = panel_page(rows, len(PLANES), panel=panel, title=title, notice=notice, left=0.95, right=BAR_WIDTH)
    for column, (plane, axis) in enumerate(PLANES.items()):
        index = study.focus[axis]
        brain, values = cut(study.brain_ZYX, axis, index), cut(map_ZYX, axis, index)
        for row in range(rows):
            target = axes[row][column]
            if row == rows - 1:
                target.imshow(values, cmap=colours, norm=scale, interpolation="nearest")
            else:
                contrast = study.contrasts.index(backgrounds[row % len(backgrounds)])
                _show_grey(target, cut(grey_CZYX[contrast], axis, index))
                if row >= len(backgrounds):
                    target.imshow(np.ma.masked_where(~brain, values), cmap=colours, norm=scale, alpha=OVERLAY_ALPHA,
                                  interpolation="nearest")  # fmt: skip
            _outline(target, study, axis, index)
            if row < len(backgrounds):
                _letter(target, plane, study)
        axes[0][column].set_title(plane.capitalize(), fontsize=9, color=MUTED, loc="left", pad=4)
    _name_rows(axes, labels)
    _colour_bar(figure, axes, scale, colours, f"{MAPS[name].title} (no unit)")
    return figure


def _map_scale(values: np.ndarray, signed: bool) -> Normalize:
    if signed:
        reach = float(np.percentile(np.abs(values), 99)) or 1.0
        return Normalize(-reach, reach)
    low, high = (float(bound) for bound in np.percentile(values, [1, 99]))
    return Normalize(low, high if high > low else low + 1)


def _show_grey(target: Axes, image: np.ndarray) -> None:
    target.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _outline(target: Axes, study: Study, axis: int, index: int) -> None:
    if study.segmentation_ZYX is None:
        return
    tumour = cut(study.segmentation_ZYX > 0, axis, index)
    if tumour.any() and not tumour.all():
        target.contour(tumour.astype(float), levels=[0.5], colors=["white"], linewidths=0.9)


def _letter(target: Axes, plane: str, study: Study) -> None:
    if study.oriented:
        target.text(0.03, 0.5, LEFT_LETTER[plane], transform=target.transAxes, color="white", fontsize=7, va="center")


def _name_rows(axes: Sequence[Sequence[Axes]], labels: Sequence[str]) -> None:
    for line, label in zip(axes, labels, strict=True):
        first, _, rest = label.partition(" ")
        text = f"{CONTRAST_NAMES.get(first, first)} {rest}".strip().replace(" + ", "\n+ ")
        line[0].set_ylabel(text, rotation=0, ha="right", va="center", labelpad=6, fontsize=9, color=INK)


def _colour_bar(figure: Figure, axes: Sequence[Sequence[Axes]], scale: Normalize, colours, label: str) -> None:
    """A bar beside the lowest right panel, drawn opaque."""
    width, height = figure.get_size_inches()
    beside = axes[-1][-1].get_position()
    bar_axes = figure.add_axes((beside.x1 + 0.12 / width, beside.y0, 0.12 / width, max(beside.height, 1.9 / height)))
    bar = figure.colorbar(ScalarMappable(scale, colours), cax=bar_axes)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(labelsize=7, length=2)
    bar.set_label(label, fontsize=7.5)


def _notice(study: Study) -> str:
    sides = "Radiological view: R = patient's right, A = anterior. " if study.oriented else ""
    outline = "" if study.segmentation_ZYX is None else "White outline: tumour mask. "
    return sides + outline + (PHANTOM_NOTICE if study.phantom else "") + NOTICE
