"""What a checkpoint says of its model, and how that is known; no model is built.

Sources, the first that answers: our own config inside the file, the options (argparse.Namespace) inside a published
one, and what names and shapes of the tensors show.
"""

import argparse
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from torch import Tensor

from util.checkpoint.files import Content

Grid = tuple[int, int, int]
Kind = Literal["masked autoencoder", "autoregressive model", "classifier", "encoder"]
FIDELITIES = ("corrected", "paper")
OUR_CONFIG = "our config in the file"
ROPE_BUFFER = re.compile(r"^(decoder_)?rope\.")
SIZES = {  # (embed_dim, depth) -> name, (decoder_embed_dim, decoder_depth); a test compares them with the registry
    (192, 12): ("tiny", (96, 4)),
    (384, 12): ("small", (192, 8)),
    (768, 12): ("base", (512, 8)),
    (1024, 24): ("large", (512, 8)),
}
FAMILIES = {"mamba": "vim", "attention": "vit"}
MIXERS = {"mamba": "x_proj_b.weight", "attention": "qkv.weight"}  # what only such a mixer has; mamba from both ends


class Known(NamedTuple):
    """A value, None if the checkpoint does not tell it, and where it stands."""

    value: Any
    how: str


def recorded(content: Content, *path: str) -> Any:
    """What our config in the checkpoint says at `path`, such as "model", "name"; None where it says nothing."""
    value = content.get("config")
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def source_grid(content: Content) -> Grid | None:
    """Tokens along (z, y, x) of the model that a checkpoint was saved from, where our config or the published options
    record its size in voxels."""
    patch = shape_fields(content["model"]).get("patch_size")
    size = image_size(content).value
    return (size[0] // patch, size[1] // patch, size[2] // patch) if size and patch else None


def image_size(content: Content) -> Known:
    """Voxels (Z, Y, X)."""
    size, how = recorded(content, "model", "fields", "img_size"), OUR_CONFIG
    if size is None:
        size, how = getattr(content.get("args"), "input_size", None), "args.input_size"
    sides = [size] * 3 if isinstance(size, int) else size
    if not (isinstance(sides, list | tuple) and len(sides) == 3 and all(isinstance(s, int) and s > 0 for s in sides)):
        return Known(None, "not recorded")
    return Known(tuple(sides), how)


def shape_fields(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The ModelConfig fields that the tensors show; only those they do."""
    found: dict[str, Any] = {}
    if shape := _shape(state, "patch_embed.proj.weight", 5):
        width, contrasts, patch = shape[:3]
        found |= {"embed_dim": width, "patch_size": patch, "in_chans": contrasts}
    for name, trunk in (("depth", "blocks"), ("decoder_depth", "decoder_blocks")):
        if numbers := [int(match[1]) for key in state if (match := re.match(rf"{trunk}\.(\d+)\.", key))]:
            found[name] = max(numbers) + 1
    if shape := _shape(state, "decoder_embed.weight", 2):
        found["decoder_embed_dim"] = shape[0]
    for mixer, parameter in MIXERS.items():  # of a kind only if all blocks are
        if "depth" in found and all(f"blocks.{i}.mixer.{parameter}" in state for i in range(found["depth"])):
            found["mixer"] = mixer
    if found.get("mixer") == "mamba" and (shape := _shape(state, "blocks.0.mixer.A_log", 2)):
        found["d_state"] = shape[1]
    if shape := _shape(state, "head.weight", 2):
        found["num_classes"] = shape[0]
    return found


def position_rows(state: Mapping[str, Tensor], name: str = "pos_embed") -> int | None:
    """Rows of a position embedding: tokens, and a slot for a class token where there is one."""
    shape = _shape(state, name, 3)
    return shape[1] if shape else None


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...] | None:
    """The shape of a tensor that is there and has so many dimensions."""
    return tuple(state[name].shape) if name in state and state[name].dim() == dimensions else None


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    if "decoder_pred.weight" in state:
        return "masked autoencoder" if "mask_token" in state else "autoregressive model"
    return "classifier" if "head.weight" in state else "encoder"


def registry_name(content: Content) -> Known:
    """The name that models.create_model takes."""
    if isinstance(name := recorded(content, "model", "name"), str):
        return Known(name, OUR_CONFIG)
    if isinstance(name := getattr(content.get("args"), "model", None), str):
        return Known(name, "args.model")
    fields, kind = shape_fields(content["model"]), kind_of(content["model"])
    size, decoder = SIZES.get((fields.get("embed_dim", 0), fields.get("depth", 0)), (None, None))
    family = FAMILIES.get(fields.get("mixer", ""))
    patch = fields.get("patch_size")
    if size and family and kind == "classifier":
        return Known(f"{family}_3d_{size}_patch{patch}", "shapes of the tensors")
    widths = fields.get("decoder_embed_dim"), fields.get("decoder_depth")
    prefix = {"masked autoencoder": "mae_3d", "autoregressive model": "ar_3d"}.get(kind)
    if size and family and prefix and widths == decoder:
        return Known(f"{prefix}_{family}_{size}_patch{patch}", "shapes of the tensors")
    return Known(None, "not recorded, and no registered name has these shapes")


def is_published(content: Content) -> bool:
    """Whether the file was written by the paper's code: it pickles its options, and stores rotary buffers."""
    return isinstance(content.get("args"), argparse.Namespace) or any(map(ROPE_BUFFER.match, content["model"]))


def fidelity_of(content: Content) -> Known:
    """ "corrected" or "paper": which maths the weights were trained with."""
    own, state = recorded(content, "model", "fields", "fidelity"), content["model"]
    if own in FIDELITIES:
        return Known(own, OUR_CONFIG)
    if isinstance(content.get("args"), argparse.Namespace):
        return Known("paper", "published: its options are an argparse.Namespace")
    if is_published(content):
        return Known("paper", "published: it stores rotary buffers")
    tokens, places = position_rows(state), position_rows(state, "decoder_pos_embed")
    if tokens and places and places - tokens in (0, 1):
        slots = places - tokens
        how = f"decoder_pos_embed has {'a' if slots else 'no'} row for a class slot"
        return Known(FIDELITIES[slots], how)
    return Known(None, "not recorded")
