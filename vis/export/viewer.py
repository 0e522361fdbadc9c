"""The viewer: one offline HTML file per subject with linked planes, a choice of contrast and map, and a threshold."""

import base64
import gzip
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from util.inference.study import Study
from vis.drawing.figures import map_colours
from vis.drawing.mosaics import background
from vis.drawing.style import NOTICE, PHANTOM_NOTICE
from vis.drawing.wording import CONTRAST_NAMES
from vis.export.html_file import write_html
from vis.maps.registry import map_kind
from vis.maps.token_grid import upsample

logger = logging.getLogger(__name__)
TEMPLATE = Path(__file__).resolve().parent / "templates" / "viewer.html"
COLOURS = 256


def write_viewer(
    path: Path,
    study: Study,
    affine: np.ndarray,
    maps: Mapping[str, Tensor],
    *,
    subtitle: str,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write the viewer of a study and its maps (z, y, x) on the token grid to `path`, atomically.

    affine: (4, 4) from prepared index (x, y, z) to world mm. notes: remarks on maps by name, shown beside the unit.
    ValueError without a map.
    """
    if not maps:
        raise ValueError("a viewer needs at least one map: choose maps with --map")
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
    write_html(
        path,
        TEMPLATE,
        subject=study.subject,
        subtitle=subtitle,
        notice=(PHANTOM_NOTICE if study.phantom else "") + NOTICE,
        data=json.dumps(data).replace("<", "\\u003c"),  # "</script>" inside the data would end the script element
    )
    logger.info("viewer: %s (%.1f MB)", path, path.stat().st_size / 1e6)


def packed(array: np.ndarray) -> str:
    """Base64 of the gzipped bytes of an array, little-endian and in C order."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(gzip.compress(little.tobytes(), compresslevel=6, mtime=0)).decode("ascii")


def _map(study: Study, name: str, map_zyx: Tensor, note: str | None) -> dict[str, Any]:
    """The data of a map: values on the token grid, colour table and scale."""
    kind, values_zyx = map_kind(name), map_zyx.detach().cpu().float()
    voxels_ZYX = upsample(values_zyx.unsqueeze(0), study.volume_CZYX.shape[1:])[0].numpy()
    scale, colours = map_colours(voxels_ZYX[study.brain_ZYX], kind.signed)
    table = (colours(np.linspace(0, 1, COLOURS))[:, :3] * 255).round().astype(int)
    return {
        "name": f"{kind.title} ({name})",
        "unit": kind.unit if note is None else f"{kind.unit}; {note}",
        "signed": kind.signed,
        "grid": list(values_zyx.shape),
        "low": scale.vmin,
        "high": scale.vmax,
        "colours": table.tolist(),
        "data": packed(values_zyx.numpy()),
    }
