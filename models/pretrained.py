"""timm's description of a model's weights (pretrained_cfg) in three dimensions, and the loading of weights it names.

Input sizes are (C, Z, Y, X) instead of timm's (C, H, W), so timm's own builder cannot make our models.
"""

from collections.abc import Mapping
from typing import Any

from timm.models import PretrainedCfg, load_pretrained, resolve_pretrained_cfg
from torch import Tensor, nn

from models.config import Grid, ModelConfig

FIRST_CONV = "patch_embed.proj"
SOURCES = ("state_dict", "file", "url", "hf_hub_id")
Card = dict[str, Any]  # a PretrainedCfg as timm keeps it on a model


def describe_weights(config: ModelConfig, classifier: str | None, **known: Any) -> PretrainedCfg:
    """The pretrained_cfg of a model with this config. classifier: the name of its classifying module, if it has one.

    Volumes arrive normalised by their own intensities, so mean and std change nothing. known: further fields of
    PretrainedCfg, such as the location of the weights.
    """
    return PretrainedCfg(
        **{
            "input_size": (config.in_chans, *config.img_size),
            "fixed_input_size": True,
            "interpolation": "trilinear",
            "crop_pct": 1.0,
            "mean": (0.0,) * config.in_chans,
            "std": (1.0,) * config.in_chans,
            "num_classes": config.num_classes if classifier else 0,
            "pool_size": config.grid,
            "first_conv": FIRST_CONV,
            "classifier": classifier,
            "license": "apache-2.0",
            "paper_ids": "arXiv:2409.07746",
            **known,
        }
    )


def resolve(
    name: str, described: str | PretrainedCfg | Mapping[str, Any] | None, overlay: Mapping[str, Any] | None
) -> Card:
    """The registered pretrained_cfg of `name`, or the given one, with fields replaced by the overlay's."""
    given = dict(described) if isinstance(described, Mapping) else described
    return resolve_pretrained_cfg(name, given, dict(overlay or {})).to_dict()  # pyright: ignore[reportArgumentType]


def fields_of(card: Card) -> dict[str, Any]:
    """The ModelConfig fields that a pretrained_cfg gives unless the caller does: in_chans, img_size, num_classes.

    Raises ValueError for an input_size that is not that of a volume.
    """
    size = tuple(card["input_size"])
    if len(size) != 4:
        raise ValueError(
            f"pretrained_cfg: input_size={size} is not (C, Z, Y, X): give four numbers (and three to img_size in the "
            f"model_args of a config.json)"
        )
    fields: dict[str, Any] = {"in_chans": size[0], "img_size": size[1:]}
    return fields | {"num_classes": card["num_classes"]} if card.get("classifier") else fields


def load_weights(model: nn.Module, card: Card, source_size: tuple[int, int, int] | None, cache_dir: Any) -> None:
    """Load the weights that `card` names (a file, url, hub or folder, in timm's order) into one of our models.

    source_size: img_size of the checkpoint, None for the model's. Positions are resampled if it differs. Weights are
    adapted as by util.checkpoint.load_pretrained. Only that function also compares fidelity and scan order, which a run
    records beside its weights. Raises ValueError for no source, a missing file, and weights that do not fit.
    """
    named = [source for source in SOURCES if card.get(source)]
    if not named:
        raise ValueError(
            f"{card['architecture']} has no downloadable weights; name a file by "
            "pretrained_cfg_overlay=dict(file=...), or load one with util.checkpoint.load_pretrained"
        )
    where = "state_dict" if named[0] == "state_dict" else card[named[0]]
    config: ModelConfig = model.config  # pyright: ignore[reportAssignmentType]
    grid: Grid | None = source_size and tuple(side // config.patch_size for side in source_size)  # pyright: ignore[reportAssignmentType]

    def fit(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
        adapted = model.adapt_state_dict(state, grid)
        if misfit := adapted.misfit(model.state_dict()):
            raise ValueError(f"they do not fit the model: its state {misfit}")
        return adapted.state

    ours = {"first_conv": None, "classifier": None, "custom_load": False}  # timm must not adapt anything
    try:
        load_pretrained(model, {**card, **ours}, filter_fn=fit, strict=False, cache_dir=cache_dir)
    except FileNotFoundError as error:
        raise ValueError(f"weights {where} do not exist") from error
    except Exception as error:  # a damaged file raises nearly any type of exception in torch's unpickler
        raise ValueError(f"weights {where} cannot be loaded: {error}") from error
