"""What a checkpoint file records of its model: our config, or the options (argparse.Namespace) of a published one.

What the tensors themselves show is answered by the models: util/checkpoint/matching.py.
"""

import argparse
from collections.abc import Mapping
from typing import Any, NamedTuple

from util.checkpoint.files import Content

Grid = tuple[int, int, int]
OUR_CONFIG = "our config in the file"


class Known(NamedTuple):
    """A value, None if the checkpoint does not tell it, and where it is recorded."""

    value: Any
    how: str


def recorded(content: Content, *path: str) -> Any:
    """The value at `path` in our config in the checkpoint, such as "model", "name"; None if it has none."""
    value = content.get("config")
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def recorded_name(content: Content) -> Known:
    """The name that models.create_model takes."""
    if isinstance(name := recorded(content, "model", "name"), str):
        return Known(name, OUR_CONFIG)
    if isinstance(name := getattr(content.get("args"), "model", None), str):
        return Known(name, "args.model")
    return Known(None, "not recorded")


def image_size(content: Content) -> Known:
    """Voxels (Z, Y, X)."""
    size, how = recorded(content, "model", "fields", "img_size"), OUR_CONFIG
    if size is None:
        size, how = getattr(content.get("args"), "input_size", None), "args.input_size"
    sides = [size] * 3 if isinstance(size, int) else size
    if not (isinstance(sides, list | tuple) and len(sides) == 3 and all(isinstance(s, int) and s > 0 for s in sides)):
        return Known(None, "not recorded")
    return Known(tuple(sides), how)


def source_grid(content: Content, patch_size: int) -> Grid | None:
    """Tokens along (z, y, x) of the model that the checkpoint was saved from; None if its size is not recorded."""
    size = image_size(content).value
    return (size[0] // patch_size, size[1] // patch_size, size[2] // patch_size) if size else None


def fidelity_of(content: Content, shown: Mapping[str, Any]) -> Known:
    """The fidelity that the weights were trained with. shown: the fields that the tensors show (models.adapt.describe).

    Our own config answers first, then the options of a published checkpoint, then the tensors.
    """
    own = recorded(content, "model", "fields", "fidelity")
    if isinstance(own, str):
        return Known(own, OUR_CONFIG)
    if isinstance(content.get("args"), argparse.Namespace):
        return Known("paper", "published: its options are an argparse.Namespace")
    if "fidelity" in shown:
        return Known(shown["fidelity"], "names and shapes of the tensors")
    return Known(None, "not recorded")
