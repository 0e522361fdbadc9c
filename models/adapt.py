"""Checkpoints speak to models: what a state dict holds, and how one model's weights fit another.

`adapt` turns any state dict of this family of models (published or ours, autoencoder or classifier) into the subset
that a target model can load, and says what it left out; a checkpoint that does not belong raises and names the reason.
"""

import re
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.config import Grid, ModelConfig
from models.tokens.positions import resample_position_embedding

ROTARY_BUFFER = re.compile(r"^(decoder_)?rope\.")  # published code stores them, ours computes them
DECODER_ONLY = re.compile(r"^(decoder_.*|mask_token$)")
CLASS_TOKEN = re.compile(r"^cls_token$")  # unused by the published model
HEAD = re.compile(r"^head\.")
MISSING_CONTRAST = "patch_embed.missing_contrast"  # where contrast_dropout is above 0
BACKWARD = re.compile(r"(?<=\.mixer\.)(.*)_b(?=[._]|$)")  # conv1d_b.weight, A_b_log, D_b
ENCODER_FIELDS = frozenset(
    {"embed_dim", "depth", "mixer", "attention_layers", "d_state", "head_dim", "patch_size", "in_chans"}
)  # fields in which a checkpoint and a model must agree; of directions fit_directions knows more


@dataclass
class AdaptedState:
    """state: what to load; ignored: keys left out on purpose; resized: what was resampled, in words; may_miss: the
    target's keys that need not be present."""

    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    may_miss: frozenset[str] = frozenset()

    def misfit(self, own: dict[str, Tensor]) -> str | None:
        """What keeps the state from loading into a model whose state is `own`: "lacks blocks.0.norm.weight", ..."""
        state = self.state
        for problem, keys in (
            ("lacks", [key for key in own if key not in state and key not in self.may_miss]),
            ("has unknown keys", [key for key in state if key not in own]),
            ("has other shapes of", [key for key in state if key in own and own[key].shape != state[key].shape]),
        ):
            if keys:
                more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
                return f"{problem} {', '.join(keys[:4])}{more}"
        return None


def describe(state: dict[str, Tensor]) -> dict[str, Any]:
    """The fields that a state dict shows: {mixer, embed_dim, patch_size, in_chans, depth, ...}; only those it has."""
    found: dict[str, Any] = {}
    if "patch_embed.proj.weight" in state:
        shape = state["patch_embed.proj.weight"].shape
        found |= {"embed_dim": shape[0], "in_chans": shape[1], "patch_size": shape[2]}
    blocks = {int(match[1]) for key in state if (match := re.match(r"blocks\.(\d+)\.", key))}
    if blocks:
        found["depth"] = max(blocks) + 1
        scanning = [block for block in sorted(blocks) if f"blocks.{block}.mixer.A_log" in state]
        if scanning:
            found |= _describe_scan(state, f"blocks.{scanning[0]}.mixer.")
            found["attention_layers"] = tuple(sorted(blocks - set(scanning)))
        elif "blocks.0.mixer.qkv.weight" in state or "blocks.0.attn.qkv.weight" in state:
            found["mixer"] = "attention"
    if "decoder_embed.weight" in state:
        found["decoder_embed_dim"] = state["decoder_embed.weight"].shape[0]
    return found


def _describe_scan(state: dict[str, Tensor], mixer: str) -> dict[str, Any]:
    """The fields that a Mamba or Mamba2 mixer shows, whose parameters' names begin with `mixer`."""
    A_log = state[mixer + "A_log"]
    found: dict[str, Any] = {"directions": "both" if mixer + "A_b_log" in state else "forward"}
    if A_log.dim() == 2:  # one decay per channel and state: Mamba
        return found | {"mixer": "mamba", "d_state": A_log.shape[1]}
    convolved, inner = state[mixer + "conv1d.weight"].shape[0], state[mixer + "norm.weight"].shape[0]
    return found | {"mixer": "mamba2", "d_state": (convolved - inner) // 2, "head_dim": inner // A_log.shape[0]}


def check_family(state: dict[str, Tensor], config: ModelConfig, fields: Set[str]) -> None:
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


def fit_directions(adapted: AdaptedState, own: dict[str, Tensor]) -> None:
    """Fit scans from the first token only to a model, whose state is `own`, that scans from both ends: parameters of
    the backward direction start as copies of the forward ones. Raises ValueError where they cannot."""
    backward = [key for key in own if BACKWARD.search(key)]
    if any(BACKWARD.search(key) for key in adapted.state):
        if not backward:
            raise ValueError(
                "directions is both in the checkpoint and forward in the model: leave directions at both "
                "(--model_kwargs directions=both), or choose a checkpoint that was trained forward only"
            )
        return  # both have both; what one of them lacks is found by whoever loads
    for key in backward:
        forward = adapted.state.get(BACKWARD.sub(r"\1", key))
        if forward is None or forward.shape != own[key].shape:
            raise ValueError(
                f"directions is forward in the checkpoint and both in the model, whose {key} has no counterpart "
                f"there to start from: pass --model_kwargs directions=forward"
            )
        adapted.state[key] = forward.clone()
    if backward:
        adapted.resized.append(
            f"{len(backward)} parameters of the backward direction: the checkpoint scans forward only, they start as "
            f"copies of its forward ones"
        )


def fit_missing_contrasts(adapted: AdaptedState, own: dict[str, Tensor]) -> None:
    """Fit the tokens of missing contrasts to a model, whose state is `own`: they start fresh where the checkpoint has
    none, and are left out where the model needs every contrast."""
    if MISSING_CONTRAST in own:
        adapted.may_miss |= {MISSING_CONTRAST}
    elif MISSING_CONTRAST in adapted.state:
        drop(adapted, re.compile(re.escape(MISSING_CONTRAST)))
        adapted.resized.append(
            f"{MISSING_CONTRAST}: left out, so this model needs every contrast; --contrast_dropout would keep it"
        )


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
