"""Checkpoints speak to models: what a state dict holds, and how one model's weights fit another.

`adapt` turns any state dict of this family of models (published or ours, autoencoder or classifier) into the subset
that a target model can load, and says what it left out; a checkpoint that does not belong raises and names the reason.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.config import Grid, ModelConfig
from models.positions import resample_position_embedding

ROTARY_BUFFER = re.compile(r"^(decoder_)?rope\.")  # published code stores them, ours computes them
DECODER_ONLY = re.compile(r"^(decoder_.*|mask_token$)")
CLASS_TOKEN = re.compile(r"^cls_token$")  # unused by the published model
HEAD = re.compile(r"^head\.")


@dataclass
class AdaptedState:
    """state: what to load; ignored: keys left out on purpose; resized: what was resampled, in words; may_miss: the
    target's keys that need not be present."""

    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    may_miss: frozenset[str] = frozenset()


def describe(state: dict[str, Tensor]) -> dict[str, Any]:
    """The numbers that a state dict shows: {mixer, embed_dim, patch_size, in_chans, depth, ...}; only those it has."""
    found: dict[str, Any] = {}
    if "patch_embed.proj.weight" in state:
        shape = state["patch_embed.proj.weight"].shape
        found |= {"embed_dim": shape[0], "in_chans": shape[1], "patch_size": shape[2]}
    blocks = {int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    if blocks:
        found["depth"] = max(blocks) + 1
        attends = "blocks.0.mixer.qkv.weight" in state or "blocks.0.attn.qkv.weight" in state
        found["mixer"] = "attention" if attends else "mamba"
    if "blocks.0.mixer.A_log" in state:
        found["d_state"] = state["blocks.0.mixer.A_log"].shape[1]
    if "decoder_embed.weight" in state:
        found["decoder_embed_dim"] = state["decoder_embed.weight"].shape[0]
    return found


def check_family(state: dict[str, Tensor], config: ModelConfig, fields: set[str]) -> None:
    """Raise ValueError, naming every field in which the checkpoint and the model differ."""
    found = describe(state)
    if not {"embed_dim", "depth"} <= found.keys():
        raise ValueError("the checkpoint holds no model of this project: patch_embed.proj.weight or blocks are missing")
    differs = [
        f"{name} is {found[name]} in the checkpoint and {getattr(config, name)} in the model"
        for name in sorted(fields & found.keys())
        if found[name] != getattr(config, name)
    ]
    if differs:
        raise ValueError("; ".join(differs) + ": choose the --model that the checkpoint was trained as")


def drop(adapted: AdaptedState, pattern: re.Pattern[str]) -> None:
    """Move the matching keys of adapted.state to adapted.ignored."""
    for key in [key for key in adapted.state if pattern.search(key)]:
        del adapted.state[key]
        adapted.ignored.append(key)


def fit_positions(adapted: AdaptedState, key: str, source: Grid | None, target: Grid, slots: int = 0) -> None:
    """Fit the position embedding `key` (1, slots + L, E) to the grid `target`: resampled in 3D where the grid of the
    checkpoint, `source` (None: the same), differs; a class-slot row dropped or added as `slots` (0 or 1) wants it."""
    if key not in adapted.state:
        return
    embedding, source = adapted.state[key], source or target
    extra = embedding.shape[1] - source[0] * source[1] * source[2]
    if extra not in (0, 1):
        raise ValueError(
            f"{key} has {embedding.shape[1]} rows, which do not fill the grid {source}: the checkpoint was trained at "
            f"another img_size and does not record it; create the model at the checkpoint's img_size"
        )
    slot_rows, body = embedding[:, :extra], embedding[:, extra:]
    if source != target:
        body = resample_position_embedding(body, source, target)
        adapted.resized.append(f"{key}: resampled from grid {source} to {target}")
    if extra > slots:
        adapted.resized.append(f"{key}: class-slot row dropped")
    missing_rows = embedding.new_zeros(1, max(slots - extra, 0), embedding.shape[2])
    adapted.state[key] = torch.cat([slot_rows[:, :slots], missing_rows, body], dim=1)
