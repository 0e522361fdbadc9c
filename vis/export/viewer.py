"""One offline HTML file per subject: linked planes, contrasts and maps to choose, threshold, outline. No network."""

import base64
import gzip
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from util.files.atomic import atomic_write
from util.inference.study import Study
from vis.drawing.figures import map_colours
from vis.drawing.mosaics import background
from vis.drawing.style import NOTICE, PHANTOM_NOTICE
from vis.drawing.wording import CONTRAST_NAMES
from vis.maps.latent import upsample
from vis.maps.registry import method

logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).resolve().parent / "templates"
COLOURS = 256


def write_viewer(path: Path, study: Study, affine: np.ndarray, maps: Mapping[str, Tensor], *, subtitle: str,
                 notes: Mapping[str, str] | None = None) -> None:  # fmt: skip
    """Write the viewer of a study and its maps (z, y, x) on the token grid to `path`, whole or not at all.

    affine: (4, 4) from prepared index (x, y, z) to world mm. notes: what stands beside a map's unit, by name.
    ValueError without a map.
    """
    if not maps:
        raise ValueError("a viewer needs at least one map: name some with --map")
    data = {
        "size": list(study.volume_CZYX.shape[1:]),
        "affine": np.asarray(affine, dtype=float).tolist(),
        "oriented": study.oriented,
        "focus": list(study.focus),
        "contrasts": [
            {"name": CONTRAST_NAMES[name], "data": packed((grey_ZYX * 255).round().astype(np.uint8))}
            for name, grey_ZYX in zip(study.contrasts, study.grey(study.volume_CZYX), strict=True)
        ],
        "brain": packed(study.brain_ZYX.astype(np.uint8)),
        "tumour": None if study.segmentation_ZYX is None else packed((study.segmentation_ZYX > 0).astype(np.uint8)),
        "maps": [_map(study, name, map_zyx, (notes or {}).get(name)) for name, map_zyx in maps.items()],
        "firstContrast": study.contrasts.index(background(study.contrasts)),
    }
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("viewer.html").render(
        subject=study.subject,
        subtitle=subtitle,
        notice=(PHANTOM_NOTICE if study.phantom else "") + NOTICE,
        data=json.dumps(data).replace("<", "\\u003c"),  # a script element ends at the first closing tag in it
    )
    with atomic_write(path, "w") as file:
        file.write(html)
    logger.info("viewer: %s (%.1f MB)", path, len(html) / 1e6)


def packed(array: np.ndarray) -> str:
    """The array's bytes, little-endian and C-ordered, gzipped, as base64."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(gzip.compress(little.tobytes(), compresslevel=6, mtime=0)).decode("ascii")


def _map(study: Study, name: str, map_zyx: Tensor, note: str | None) -> dict[str, Any]:
    shown, values_zyx = method(name), map_zyx.detach().cpu().float()
    size = (study.volume_CZYX.shape[1], study.volume_CZYX.shape[2], study.volume_CZYX.shape[3])
    voxels_ZYX = upsample(values_zyx.unsqueeze(0), size)[0].numpy()
    scale, colours = map_colours(voxels_ZYX[study.brain_ZYX], shown.signed)
    table = (colours(np.linspace(0, 1, COLOURS))[:, :3] * 255).round().astype(int)
    return {
        "name": f"{shown.title} ({name})",
        "unit": shown.unit if note is None else f"{shown.unit}; {note}",
        "signed": shown.signed,
        "grid": list(values_zyx.shape),
        "low": scale.vmin,
        "high": scale.vmax,
        "colours": table.tolist(),
        "data": packed(values_zyx.numpy()),
    }
