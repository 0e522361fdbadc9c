"""The one door to models: names are rows of data times patch sizes, registered with timm."""

from typing import Any

import timm
from timm.models import register_model
from torch import nn

from models.classifier import VolumeClassifier
from models.config import build_config, did_you_mean
from models.mae import MaskedAutoencoder3D

PATCH_SIZES = (4, 8, 16, 32)
WIDTHS = ("embed_dim", "depth", "num_heads", "decoder_embed_dim", "decoder_depth", "decoder_num_heads")
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(zip(WIDTHS, (192, 12, 3, 96, 4, 3))),
    "small": dict(zip(WIDTHS, (384, 12, 6, 192, 8, 6))),
    "base": dict(zip(WIDTHS, (768, 12, 12, 512, 8, 16))),
    "large": dict(zip(WIDTHS, (1024, 24, 16, 512, 8, 16))),
}
FAMILIES: dict[str, dict[str, Any]] = {
    "vim": {"mixer": "mamba", "rotary": "axial"},
    "vit": {"mixer": "attention", "rotary": "none", "mlp_ratio": 4.0},
}
CLASSIFIER_ALIAS = "vim_3D_{size}_patch{p}_stride{p}_224_bimambav2_final_pool_mean_abs_pos_embed_div2"
TIMM_OPTIONS = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")  # timm passes these to every entry point

_ALIASES: dict[str, str] = {}  # the paper's long names -> ours
_NAMES: list[str] = []


def create_model(name: str, **fields: Any) -> nn.Module:
    """The model that `name` stands for, a registered name or an alias of the paper's, with ModelConfig fields changed.

    Raises ValueError for an unknown name or field, with the closest known one.
    """
    if name not in _NAMES and name not in _ALIASES:
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, [*_NAMES, *_ALIASES])} See models.list_models()")
    return timm.create_model(name, **fields)


def list_models(filter: str = "", *, aliases: bool = False) -> list[str]:
    """Registered names that contain `filter`, sorted; with aliases the paper's long names too."""
    return sorted(name for name in [*_NAMES, *(_ALIASES if aliases else ())] if filter in name)


def _register(name: str, model_class: type, row: dict[str, Any]) -> None:
    def entry_point(pretrained: bool = False, **fields: Any) -> nn.Module:
        if pretrained:
            raise ValueError(f"{name} has no downloadable weights; load a file with util.checkpoint.load_pretrained")
        for option in TIMM_OPTIONS:
            fields.pop(option, None)
        return model_class(build_config({**row, **fields}))

    entry_point.__name__ = entry_point.__qualname__ = name
    register_model(entry_point)


def _register_all() -> None:
    kinds = (
        ("mae_3d_{family}_{size}_patch{p}", MaskedAutoencoder3D),
        ("{family}_3d_{size}_patch{p}", VolumeClassifier),
    )
    for family, mixer in FAMILIES.items():
        for size, widths in SIZES.items():
            for p in PATCH_SIZES:
                row = {**mixer, **widths, "patch_size": p}
                for pattern, model_class in kinds:
                    name = pattern.format(family=family, size=size, p=p)
                    _NAMES.append(name)
                    _register(name, model_class, row)
                if family == "vim":
                    alias = CLASSIFIER_ALIAS.format(size=size, p=p)
                    _ALIASES[alias] = f"vim_3d_{size}_patch{p}"
                    _register(alias, VolumeClassifier, row)


_register_all()
