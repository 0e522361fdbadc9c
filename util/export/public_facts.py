"""What of a run may leave the house: lists of what is said, so that whatever a run may record besides (paths, command
lines, names of subjects and columns) stays at home."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

SAID = ("kind", "label_type", "k_fold", "repeats", "n_unknown", "objective", "mask_ratio", "device", "ranks", "git",
        "versions")  # fmt: skip
SAID_OF_DATA = ("normalize", "contrasts", "n_subjects", "phantom")
SAID_OF_PREPARATION = ("size", "percentiles", "margin")
SAID_OF_PRECISION = ("asked", "used")
OPTIONS = (
    "accum_iter", "augment", "batch_size", "blr", "calibrate", "class_weights", "clip_grad", "control", "cutmix",
    "ema", "epochs", "freeze_trunk", "k_fold", "layer_decay", "lr", "max_bad_steps", "min_lr", "mixup", "no_augment",
    "patience", "precision", "repeats", "seed", "select", "smoothing", "threshold", "tta", "use_scheduler",
    "val_fraction", "warmup_epochs", "weight_decay",
)  # fmt: skip  # of a training's command line
RESULTS = ("label_type", "n", "n_positive", "n_unknown", "k_fold", "repeats", "missing_folds", "per_fold", "mean", "sd",
           "pooled", "statistics")  # fmt: skip
WORD = re.compile(r"[\w.+-]{0,40}")  # a choice among words, such as "bf16"; no path


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's config.json, or the config inside a checkpoint, as far as it is published; its model is said
    by the model itself."""
    data = config.get("data", {})
    preparation = {"preparation": _some(data["preparation"], SAID_OF_PREPARATION)} if data.get("preparation") else {}
    precision = {"precision": _some(config["precision"], SAID_OF_PRECISION)} if config.get("precision") else {}
    return (
        _some(config, SAID)
        | precision
        | {
            "data": _some(data, SAID_OF_DATA) | preparation,
            "args": {name: value for name, value in _some(config.get("args", {}), OPTIONS).items() if _is_plain(value)},
        }
    )


def public_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """A run's results.json as far as it is published: scores of the model, of parts of the cohort, of baselines."""
    said = _some(results, RESULTS)
    said["protocol"] = {
        name: value for name, value in _some(results.get("protocol", {}), OPTIONS).items() if _is_plain(value)
    }
    for name, keys in (
        ("subgroups", ("name", "statistics")),
        ("baselines", ("name", "statistics", "model_minus_baseline")),
    ):
        said[name] = [_some(entry, keys) for entry in results.get(name, [])]
    return said


def _some(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and bool(WORD.fullmatch(value)))
