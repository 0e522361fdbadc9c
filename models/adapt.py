"""What a state dict shows of the model it was saved from, and how it is adapted to another model.

Each model's `adapt_state_dict` is built from these parts. It turns the state dict of another of our models, or of a
published one, into the tensors that the model can load, and lists what it left out. A state dict that does not belong
raises ValueError with the reason.
"""

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal

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


Kind = Literal["masked autoencoder", "autoregressive model", "classifier", "encoder"]


@dataclass
class AdaptedState:
    """state: what to load; ignored: keys left out on purpose; resized: what was resampled, in words; may_miss: the
    target's keys that need not be present; shown: `describe` of the state before anything was left out."""

    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    may_miss: frozenset[str] = frozenset()
    shown: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.shown = describe(self.state)

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


def kind_of(state: Mapping[str, Tensor]) -> Kind:
    """The kind of model that a state dict was saved from. An encoder is a classifier without its head."""
    if "decoder_pred.weight" in state:
        return "masked autoencoder" if "mask_token" in state else "autoregressive model"
    return "classifier" if "head.weight" in state else "encoder"


def stores_rotary_buffers(state: Mapping[str, Tensor]) -> bool:
    """Whether the published code wrote the state dict: it stores the buffers of its rotary embedding."""
    return any(map(ROTARY_BUFFER.match, state))


def describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The ModelConfig fields that the names and shapes of a state dict show: {mixer, embed_dim, depth, ...}."""
    found: dict[str, Any] = {}
    if shape := _shape(state, "patch_embed.proj.weight", 5):
        found |= {"embed_dim": shape[0], "in_chans": shape[1], "patch_size": shape[2]}
    if blocks := block_numbers(state, "blocks"):
        found |= {"depth": max(blocks) + 1, **_describe_mixers(state, blocks)}
        if found.get("embed_dim") and (shape := _shape(state, "blocks.0.mlp.fc1.weight", 2)):
            found["mlp_ratio"] = shape[0] / found["embed_dim"]
    if shape := _shape(state, "decoder_embed.weight", 2):
        found["decoder_embed_dim"] = shape[0]
    if blocks := block_numbers(state, "decoder_blocks"):
        found["decoder_depth"] = max(blocks) + 1
    if shape := _shape(state, "head.weight", 2):
        found["num_classes"] = shape[0]
    tokens, slots = _shape(state, "pos_embed", 3), _shape(state, "decoder_pos_embed", 3)
    if stores_rotary_buffers(state):
        found["fidelity"] = "paper"
    elif tokens and slots and slots[1] - tokens[1] in (0, 1):  # a row for the class token, which only `paper` has
        found["fidelity"] = "paper" if slots[1] > tokens[1] else "corrected"
    return found


def block_numbers(state: Mapping[str, Tensor], trunk: str) -> set[int]:
    """The numbers of the blocks of `trunk` ("blocks" or "decoder_blocks") that have parameters."""
    return {int(match[1]) for key in state if (match := re.match(rf"{trunk}\.(\d+)\.", key))}


def _describe_mixers(state: Mapping[str, Tensor], blocks: set[int]) -> dict[str, Any]:
    """The fields that the mixers of the encoder's blocks show."""
    scanning = [block for block in sorted(blocks) if f"blocks.{block}.mixer.A_log" in state]
    if scanning:
        attending = tuple(sorted(blocks - set(scanning)))
        return _describe_scan(state, f"blocks.{scanning[0]}.mixer.") | {"attention_layers": attending}
    if "blocks.0.mixer.qkv.weight" in state or "blocks.0.attn.qkv.weight" in state:
        return {"mixer": "attention"}
    return {}


def _describe_scan(state: Mapping[str, Tensor], mixer: str) -> dict[str, Any]:
    """The fields that a Mamba or Mamba2 mixer shows, whose parameters' names begin with `mixer`."""
    found: dict[str, Any] = {"directions": "both" if mixer + "A_b_log" in state else "forward"}
    if shape := _shape(state, mixer + "A_log", 2):  # one decay per channel and state: Mamba
        return found | {"mixer": "mamba", "d_state": shape[1]}
    heads, norm = _shape(state, mixer + "A_log", 1), _shape(state, mixer + "norm.weight", 1)
    convolution = _shape(state, mixer + "conv1d.weight", 3)
    if heads and norm and convolution:  # one decay per head: Mamba2
        (inner,) = norm
        found |= {"mixer": "mamba2", "d_state": (convolution[0] - inner) // 2, "head_dim": inner // max(heads[0], 1)}
    return found


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...] | None:
    """The shape of the tensor `name`, if the state dict has it with that number of dimensions."""
    return tuple(state[name].shape) if name in state and state[name].dim() == dimensions else None


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
