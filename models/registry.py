"""Models by name: rows of a table times patch sizes, registered with timm."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from timm.models import PretrainedCfg, generate_default_cfgs, register_model
from timm.models._builder import pretrained_cfg_for_features
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from models.adapt import Kind, describe, kind_of
from models.ar import AutoregressiveModel3D
from models.classifier import VolumeClassifier
from models.config import build_config, did_you_mean
from models.encoder import VolumeEncoder
from models.mae import MaskedAutoencoder3D
from models.predictor import PatchPredictor
from models.pretrained import describe_weights, fields_of, load_weights, resolve

PATCH_SIZES = (4, 8, 16, 32)
WIDTHS = ("embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(zip(WIDTHS, (192, 12, 3, 96, 4, 3))),
    "small": dict(zip(WIDTHS, (384, 12, 6, 192, 8, 6))),
    "base": dict(zip(WIDTHS, (768, 12, 12, 512, 8, 16))),
    "large": dict(zip(WIDTHS, (1024, 24, 16, 512, 8, 16))),
}
VIM: dict[str, Any] = {"mixer": "mamba", "rotary": "axial"}
# The paper's code leaves d_state and headdim to mamba_ssm's Mamba2, whose defaults are 128 and 64.
VIM2: dict[str, Any] = {"mixer": "mamba2", "rotary": "none", "directions": "forward", "d_state": 128, "head_dim": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "vim": VIM,
    "vit": {"mixer": "attention", "rotary": "none", "mlp_ratio": 4.0},
    "vim2": VIM2,
    "bivim2": VIM2 | {"directions": "both", "d_state": 64},  # ours; two states of 64 where vim2 has one of 128
    "vim_mha": VIM2 | {"attention_layers": (3, 6, 9)},  # the paper's hybrid, whose other blocks are Mamba2's
    "bivim_mha": VIM | {"attention_layers": (3, 6, 9)},  # ours: attention among bidirectional Mamba blocks
}
WIDER = {"small": {"embed_dim": 512, "decoder_embed_dim": 256}}  # the paper's widths of Mamba2 models
# (name in the paper's code, our name, sizes, changed fields)
ALIASES: tuple[tuple[str, str, tuple[str, ...], dict[str, Any]], ...] = (
    ("vim_3D_{size}_patch{p}_stride{p}_224_bimambav2_final_pool_mean_abs_pos_embed_div2", "vim_3d", tuple(SIZES), {}),
    ("vim_3D_{size}_patch{p}_stride{p}_224_bimambav2_final_pool_none_abs_pos_embed_div2", "vim_3d", ("small",),
     {"pool": "last"}),
    ("vim2_3D_{size}_patch{p}_stride{p}_final_pool_mean_abs_pos_embed_div2", "vim2_3d", ("small",), {}),
    ("vim_mha_3D_{size}_patch{p}_stride{p}_final_pool_mean_abs_pos_embed_div2", "vim_mha_3d", ("small",), {}),
    ("vit_3D_{size}_patch{p}", "vit_3d", ("small",), {}),
    ("mae_3d_vim_{size}_patch{p}_rms_bimambav2_rope_residual", "mae_3d_vim", ("small", "base", "large"), {}),
    ("mae_3d_vim2_{size}_patch{p}_rms_no_rope_residual", "mae_3d_vim2", ("small",), {}),
    ("mae_3d_mha_{size}_patch{p}_rms_no_rope_residual", "mae_3d_vim_mha", ("small",), {}),
    ("mae_vit_3d_{size}_patch{p}_dec192d8b", "mae_3d_vit", ("small",), {}),
)  # fmt: skip
# Names of the paper's code that are misleading: one has a stride that the code ignores, one lacks 3d.
ODD_ALIASES = {
    "vim_3D_base_patch16_stride8_224_bimambav2_final_pool_mean_abs_pos_embed_div2": "vim_3d_base_patch16",
    "mae_vit_small_patch32": "mae_3d_vit_small_patch32",
}
MODEL_CLASSES: dict[Kind, type[PatchPredictor] | type[VolumeClassifier]] = {
    "masked autoencoder": MaskedAutoencoder3D,
    "autoregressive model": AutoregressiveModel3D,
    "classifier": VolumeClassifier,
    "encoder": VolumeClassifier,
}
FREE_FIELDS = frozenset({"in_chans", "num_classes", "fidelity"})  # independent of the name
OUT_INDICES = 3  # features_only=True gives the maps of so many last blocks, as timm does for ViTs

default_cfgs: dict[str, Any] = {}  # pretrained_cfg by registered name; timm's register_model reads it
_ALIASES: dict[str, str] = {}  # the paper's long names -> ours
_ROWS: dict[str, tuple[type[VolumeEncoder], dict[str, Any]]] = {}  # our names -> model class, ModelConfig fields
_VARIANTS: dict[str, str] = {}  # our names -> family, size and patch, without the kind of model


def create_model(name: str, **fields: Any) -> nn.Module:
    """The model with this registered name, or alias of the paper's code, with ModelConfig fields changed.

    Raises ValueError for an unknown name or field, with the closest known one.
    """
    if name not in _ROWS and name not in _ALIASES:
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, [*_ROWS, *_ALIASES])} See models.list_models()")
    return timm.create_model(name, **fields)


def list_models(filter: str = "", *, aliases: bool = False) -> list[str]:
    """Registered names that contain `filter`, sorted; with aliases the paper's long names too."""
    return sorted(name for name in [*_ROWS, *(_ALIASES if aliases else ())] if filter in name)


def find_name(state: Mapping[str, Tensor]) -> str | None:
    """The registered name of the model that a state dict was saved from, whatever its contrasts, volume size and
    classes; None if no name has its fields."""
    model_class = MODEL_CLASSES[kind_of(state)]
    shown = {field: value for field, value in describe(state).items() if field not in FREE_FIELDS}
    if not {"mixer", "patch_size"} <= shown.keys():
        return None
    for name, (other_class, row) in _ROWS.items():
        config = build_config(row) if other_class is model_class else None
        if config and all(getattr(config, field) == value for field, value in shown.items()):
            return name
    return None


def sibling_fields(name: str | None, kind: Kind) -> dict[str, Any]:
    """The ModelConfig fields of the registered model of another `kind` with the family, size and patch of `name`; {}
    where there is none."""
    variant = _VARIANTS.get(_ALIASES.get(name or "", name or ""))
    for other, (model_class, row) in _ROWS.items():
        if variant is not None and _VARIANTS[other] == variant and model_class is MODEL_CLASSES[kind]:
            return dict(row)
    return {}


def _register(name: str, model_class: type[VolumeEncoder], row: dict[str, Any]) -> None:
    def entry_point(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        pretrained_model_args: dict[str, Any] | None = None,
        cache_dir: Any = None,
        features_only: bool = False,
        out_indices: int | Sequence[int] = OUT_INDICES,
        **fields: Any,
    ) -> nn.Module:
        card = resolve(name, pretrained_cfg, pretrained_cfg_overlay)
        model = model_class(build_config({**row, **fields_of(card), **fields}))
        model.pretrained_cfg = model.default_cfg = card
        if pretrained or card.get("source"):  # local-dir: or hf-hub:, which name weights
            has_size = isinstance(pretrained_cfg, Mapping | PretrainedCfg) or "input_size" in (
                pretrained_cfg_overlay or {}
            )
            load_weights(model, card, tuple(card["input_size"][1:]) if has_size else None, cache_dir)
        return _features(model, out_indices) if features_only else model

    entry_point.__name__ = entry_point.__qualname__ = name
    described = describe_weights(build_config(row), model_class.classifier)
    default_cfgs.update(generate_default_cfgs({name: described}))
    register_model(entry_point)


def _features(model: VolumeEncoder, out_indices: int | Sequence[int]) -> nn.Module:
    """The model pruned to the maps (B, E, Z/p, Y/p, X/p) after these blocks."""
    features: Any = FeatureGetterNet(model, out_indices)  # pyright: ignore[reportArgumentType]  # its types are narrower
    features.pretrained_cfg = features.default_cfg = pretrained_cfg_for_features(model.pretrained_cfg)
    return features


def _register_alias(alias: str, name: str, changed: dict[str, Any]) -> None:
    model_class, row = _ROWS[name]
    _ALIASES[alias] = name
    _register(alias, model_class, {**row, **changed})


def _register_all() -> None:
    kinds = (
        ("mae_3d_{family}_{size}_patch{p}", MaskedAutoencoder3D, {}, tuple(FAMILIES)),
        ("ar_3d_{family}_{size}_patch{p}", AutoregressiveModel3D, {"directions": "forward"}, ("vim", "vit", "vim2")),
        ("{family}_3d_{size}_patch{p}", VolumeClassifier, {}, tuple(FAMILIES)),
    )
    for family, size, p in itertools.product(FAMILIES, SIZES, PATCH_SIZES):
        wider = WIDER.get(size, {}) if FAMILIES[family]["mixer"] == "mamba2" else {}
        row = {**FAMILIES[family], **SIZES[size], **wider, "patch_size": p}
        for pattern, model_class, changed, families in kinds:
            if family in families:
                name = pattern.format(family=family, size=size, p=p)
                _ROWS[name] = model_class, {**row, **changed}
                _VARIANTS[name] = f"{family}_{size}_patch{p}"
                _register(name, *_ROWS[name])
    for pattern, ours, sizes, changed in ALIASES:
        for size, p in itertools.product(sizes, PATCH_SIZES):
            _register_alias(pattern.format(size=size, p=p), f"{ours}_{size}_patch{p}", changed)
    for alias, name in ODD_ALIASES.items():
        _register_alias(alias, name, {})


_register_all()
