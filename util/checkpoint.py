"""Saving checkpoints, and loading weights with a report of what was and was not loaded."""

import argparse
import logging
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from util.atomic import atomic_write

logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """Keys of the model that the checkpoint lacked (missing), keys of the checkpoint that were left out on purpose
    (ignored) or have no place in the model (unexpected, always empty after a successful load), and what was resized,
    in words."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    with atomic_write(path) as file:
        torch.save(content, file)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a checkpoint on the CPU: tensors, plain values and at most argparse.Namespace, as published ones
    hold. Raises ValueError for a file that is missing, no checkpoint, or whose pickle asks for anything else."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} does not exist")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"checkpoint {path} cannot be read: it is truncated, no torch checkpoint, or holds code that we refuse to "
            f"run ({reason})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {path} holds a {type(content).__name__}, expected a dictionary with a 'model'")
    return content if "model" in content else {"model": content}


def load_pretrained(model: nn.Module, path: Path | str) -> LoadReport:
    """Load what fits from a pre-trained checkpoint, ours or a published one, into an autoencoder or a classifier.

    The model says what fits (adapt_state_dict); a key that is missing or unexpected beyond that raises ValueError, so a
    wrong checkpoint never trains from scratch unnoticed.
    """
    content = read_checkpoint(path)
    try:
        adapted = model.adapt_state_dict(content["model"], source_grid(content))  # pyright: ignore[reportCallIssue]
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    own = model.state_dict()
    report = LoadReport(
        missing=[key for key in own if key not in adapted.state],
        unexpected=[key for key in adapted.state if key not in own],
        ignored=adapted.ignored,
        resized=adapted.resized,
    )
    lacking = [key for key in report.missing if key not in adapted.may_miss]
    misshapen = [key for key, value in adapted.state.items() if key in own and own[key].shape != value.shape]
    for problem, keys in (
        ("lacks", lacking),
        ("has unknown keys", report.unexpected),
        ("has other shapes of", misshapen),
    ):
        if keys:
            more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
            raise ValueError(f"checkpoint {path} does not fit the model: it {problem} {', '.join(keys[:4])}{more}")
    model.load_state_dict(adapted.state, strict=False)
    logger.info(
        "loaded %s: %d tensors, starting fresh: %s, left out: %d",
        path,
        len(adapted.state),
        ", ".join(report.missing) or "nothing",
        len(report.ignored),
    )
    for line in report.resized:
        logger.info("  %s", line)
    return report


def load_weights(model: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load one of our own checkpoints into the model it was saved from, every key; its content is returned."""
    content = read_checkpoint(path)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path} is not of this model: {str(error).splitlines()[1].strip()}") from error
    return content


def source_grid(content: dict[str, Any]) -> tuple[int, int, int] | None:
    """Tokens along (z, y, x) of the model that a checkpoint was saved from: our config or the published args tell."""
    weight = content["model"].get("patch_embed.proj.weight")
    size = content.get("config", {}).get("model", {}).get("fields", {}).get("img_size")
    if size is None:
        size = getattr(content.get("args"), "input_size", None)
    if size is None or weight is None:
        return None
    z, y, x = (size,) * 3 if isinstance(size, int) else size
    patch = weight.shape[-1]
    return z // patch, y // patch, x // patch
