"""Questions about a checkpoint that the models answer: its registered name, and what load_pretrained would report.

Models are built on the meta device, where parameters have shapes but no values.
"""

import argparse
import math
from collections.abc import Mapping
from typing import get_args

import torch

from models.adapt import Kind, block_numbers, describe, kind_of, stores_rotary_buffers
from models.classifier import VolumeClassifier
from models.config import Fidelity, Grid, build_config
from models.predictor import PatchPredictor
from models.registry import MODEL_CLASSES, find_name, sibling_fields
from util.checkpoint.facts import Known, recorded, recorded_name, source_grid
from util.checkpoint.files import Content
from util.checkpoint.loading import LoadReport, adapt_checkpoint, check_fidelity

FIDELITIES: tuple[Fidelity, ...] = get_args(Fidelity)
TARGETS: tuple[Kind, ...] = ("masked autoencoder", "autoregressive model", "classifier")
# Fields that decide which parameters a model has, and that `describe` does not show.
RECORDED_FIELDS = (
    "expand", "d_conv", "num_heads", "decoder_num_heads", "attention_heads", "attention_head_dim", "contrast_dropout",
)  # fmt: skip


def registry_name(content: Content) -> Known:
    """The name that models.create_model takes: as recorded, else the one whose fields the tensors show."""
    known = recorded_name(content)
    if known.value is None:
        if name := find_name(content["model"]):
            return Known(name, "names and shapes of the tensors")
        return Known(None, "not recorded, and no registered name has these shapes")
    return known


def is_published(content: Content) -> bool:
    """Whether the paper's code wrote the file: it pickles its options and stores rotary buffers."""
    return isinstance(content.get("args"), argparse.Namespace) or stores_rotary_buffers(content["model"])


def expected_report(content: Content, target: Kind, fidelity: Fidelity) -> LoadReport:
    """What load_pretrained would report for a model of the kind `target`, of the checkpoint's family, size, contrasts
    and classes. Raises ValueError where load_pretrained would, except for weights that are not finite
    (check_finite)."""
    model = matching_model(content, target, fidelity)
    check_fidelity(content, fidelity)
    return adapt_checkpoint(model, content)[1]


def matching_model(content: Content, target: Kind, fidelity: Fidelity) -> PatchPredictor | VolumeClassifier:
    """A model of the kind `target` with the fields of the checkpoint's model, on the meta device. ValueError if there
    is none."""
    state = content["model"]
    shown = describe(state)
    for trunk, field in (("blocks", "depth"), ("decoder_blocks", "decoder_depth")):
        numbers = block_numbers(state, trunk)
        if shown.get(field, 0) > len(numbers):  # else one wrong number makes a model of any depth
            raise ValueError(f"{trunk} are numbered up to {max(numbers)}, and there are {len(numbers)} of them")
    if not {"embed_dim", "depth", "mixer"} <= shown.keys():
        raise ValueError("the checkpoint holds no model of this project")
    own_fields = recorded(content, "model", "fields")
    own_fields = own_fields if isinstance(own_fields, Mapping) else {}
    known = {name: own_fields[name] for name in RECORDED_FIELDS if name in own_fields}
    sibling = sibling_fields(registry_name(content).value, target)
    if target == "autoregressive model":  # whose attention scans forward too, which shows in no tensor
        shown["directions"] = "forward"
    elif sibling and target != kind_of(state):
        shown.pop("directions", None)  # a classifier scans as its registered name says
    try:
        shown |= {"fidelity": fidelity, "img_size": _image_size(content, shown["patch_size"])}
        with torch.device("meta"):
            return MODEL_CLASSES[target](build_config({**sibling, **known, **shown}))
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:  # a damaged file can record any value
        raise ValueError(f"there is no such model: {error}") from error


def _image_size(content: Content, patch_size: int) -> Grid:
    """Voxels of a volume with as many tokens as the checkpoint has positions, of the recorded sides if they agree."""
    rows = position_rows(content)
    grid = source_grid(content, patch_size)
    if grid is None or (rows is not None and rows - math.prod(grid) not in (0, 1)):
        grid = (1, 1, rows or 1)
    z, y, x = (side * patch_size for side in grid)
    return z, y, x


def position_rows(content: Content) -> int | None:
    """Rows of the position embedding: tokens, and one for a class token where there is one."""
    embedding = content["model"].get("pos_embed")
    return embedding.shape[1] if embedding is not None and embedding.dim() == 3 else None
