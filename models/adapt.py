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

ROTARY_BUFFER = re.compile(r"^(decoder_)?rope\.")  # the published code stores them, ours computes them
DECODER_ONLY = re.compile(r"^(decoder_.*|mask_token$)")
CLASS_TOKEN = re.compile(r"^cls_token$")  # unused by the published model
HEAD = re.compile(r"^head\.")
MISSING_CONTRAST = "patch_embed.missing_contrast"  # a parameter of models with contrast_dropout above 0
BACKWARD = re.compile(r"(?<=\.mixer\.)(.*)_b(?=[._]|$)")  # conv1d_b.weight, A_b_log, D_b
ENCODER_FIELDS = frozenset(
    {"embed_dim", "depth", "mixer", "attention_layers", "d_state", "head_dim", "patch_size", "in_chans"}
)  # fields in which a checkpoint and a model must agree; `fit_directions` compares the directions


Kind = Literal["masked autoencoder", "autoregressive model", "classifier", "encoder"]


@dataclass
class AdaptedState:
    """The part of a state dict that a model can load, and what happened to the rest."""

    state: dict[str, Tensor]
    """What to load."""
    ignored: list[str] = field(default_factory=list)
    """Keys left out on purpose."""
    resized: list[str] = field(default_factory=list)
    """Descriptions of what was resampled or started as a copy."""
    may_miss: frozenset[str] = frozenset()
    """The target's keys that need not be present."""
    shown: dict[str, Any] = field(init=False)
    """`describe` of the state before anything was left out."""

    def __post_init__(self) -> None:
        self.shown = describe(self.state)

    def misfit(self, own: dict[str, Tensor]) -> str | None:
        """Why the state cannot load into a model whose state is `own`, such as "lacks norm_f.weight"; or None."""
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
    shown: dict[str, Any] = {}
    if shape := _shape(state, "patch_embed.proj.weight", 5):
        shown |= {"embed_dim": shape[0], "in_chans": shape[1], "patch_size": shape[2]}
    if blocks := block_numbers(state, "blocks"):
        shown |= {"depth": max(blocks) + 1, **_describe_mixers(state, blocks)}
        if shown.get("embed_dim") and (shape := _shape(state, "blocks.0.mlp.fc1.weight", 2)):
            shown["mlp_ratio"] = shape[0] / shown["embed_dim"]
    if shape := _shape(state, "decoder_embed.weight", 2):
        shown["decoder_embed_dim"] = shape[0]
    if blocks := block_numbers(state, "decoder_blocks"):
        shown["decoder_depth"] = max(blocks) + 1
    if shape := _shape(state, "head.weight", 2):
        shown["num_classes"] = shape[0]
    tokens, slots = _shape(state, "pos_embed", 3), _shape(state, "decoder_pos_embed", 3)
    if stores_rotary_buffers(state):
        shown["fidelity"] = "paper"
    elif tokens and slots and slots[1] - tokens[1] in (0, 1):  # a row for the class token, which only `paper` has
        shown["fidelity"] = "paper" if slots[1] > tokens[1] else "corrected"
    return shown


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
    """The fields that a Mamba or Mamba2 mixer shows. Its parameters' names begin with `mixer`."""
    shown: dict[str, Any] = {"directions": "both" if mixer + "A_b_log" in state else "forward"}
    if shape := _shape(state, mixer + "A_log", 2):  # one decay per channel and state: Mamba
        return shown | {"mixer": "mamba", "d_state": shape[1]}
    heads, norm = _shape(state, mixer + "A_log", 1), _shape(state, mixer + "norm.weight", 1)
    convolution = _shape(state, mixer + "conv1d.weight", 3)
    if heads and norm and convolution:  # one decay per head: Mamba2
        (inner,) = norm
        shown |= {"mixer": "mamba2", "d_state": (convolution[0] - inner) // 2, "head_dim": inner // max(heads[0], 1)}
    return shown


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...] | None:
    """The shape of the tensor `name`, if the state dict has it with that number of dimensions."""
    return tuple(state[name].shape) if name in state and state[name].dim() == dimensions else None


def check_family(state: dict[str, Tensor], config: ModelConfig, fields: Set[str]) -> None:
    """Raise ValueError, naming every field in which the checkpoint and the model differ."""
    shown = describe(state)
    if not {"embed_dim", "depth"} <= shown.keys():
        raise ValueError("the checkpoint holds no model of this project: patch_embed.proj.weight or blocks are missing")
    differs = [
        f"{name} is {shown[name]} in the checkpoint and {getattr(config, name)} in the model"
        for name in sorted(fields & shown.keys())
        if shown[name] != getattr(config, name)
    ]
    if differs:
        raise ValueError("; ".join(differs) + ": choose the --model that the checkpoint was trained as")


def drop(adapted: AdaptedState, pattern: re.Pattern[str]) -> None:
    """Move the matching keys of adapted.state to adapted.ignored."""
    for key in [key for key in adapted.state if pattern.search(key)]:
        del adapted.state[key]
        adapted.ignored.append(key)


def fit_directions(adapted: AdaptedState, own: dict[str, Tensor]) -> None:
    """Fit the scan directions of a state to a model whose state is `own`.

    If only the model scans from both ends, its backward parameters start as copies of the forward ones. Raises
    ValueError if only the state does, or if the forward parameters do not fit.
    """
    backward = [key for key in own if BACKWARD.search(key)]
    if any(BACKWARD.search(key) for key in adapted.state):
        if not backward:
            raise ValueError(
                "directions is both in the checkpoint and forward in the model: leave directions at both "
                "(--model_kwargs directions=both), or choose a checkpoint that was trained forward only"
            )
        return  # both scan from both ends; `misfit` finds parameters that are missing
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
    """Fit the tokens of missing contrasts to a model whose state is `own`.

    They start fresh if the checkpoint has none, and are left out if the model needs every contrast.
    """
    if MISSING_CONTRAST in own:
        adapted.may_miss |= {MISSING_CONTRAST}
    elif MISSING_CONTRAST in adapted.state:
        drop(adapted, re.compile(re.escape(MISSING_CONTRAST)))
        adapted.resized.append(
            f"{MISSING_CONTRAST}: left out, so this model needs every contrast; --contrast_dropout would keep it"
        )


def fit_positions(adapted: AdaptedState, key: str, source: Grid | None, target: Grid, slots: int = 0) -> None:
    """Fit the position embedding `key` (1, slots + L, E) to the grid `target`.

    It is resampled in 3D if the checkpoint's grid differs: `source`, or None for the same grid. The row of a class slot
    is dropped or added so that there are `slots` of them, 0 or 1.
    """
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
