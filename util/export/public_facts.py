"""The facts of a run that are published with an exported model.

These are lists of what is allowed. Everything else that a run records (paths, command lines, names of subjects and
columns) stays private.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

RUN = ("kind", "label_type", "k_fold", "repeats", "n_unknown", "objective", "mask_ratio", "device", "ranks", "git",
       "versions")  # fmt: skip
DATA = ("normalize", "contrasts", "n_subjects", "phantom")
PREPARATION = ("size", "percentiles", "margin")
PRECISION = ("asked", "used")
OPTIONS = (
    "accum_iter", "augment", "batch_size", "blr", "calibrate", "class_weights", "clip_grad", "control", "cutmix",
    "ema", "epochs", "freeze_trunk", "k_fold", "layer_decay", "lr", "max_bad_steps", "min_lr", "mixup", "no_augment",
    "patience", "precision", "repeats", "seed", "select", "smoothing", "threshold", "tta", "use_scheduler",
    "val_fraction", "warmup_epochs", "weight_decay",
)  # fmt: skip  # of a training's command line
RESULTS = ("label_type", "n", "n_positive", "n_unknown", "k_fold", "repeats", "missing_folds", "per_fold", "mean", "sd",
           "pooled", "statistics")  # fmt: skip
WORD = re.compile(r"[\w.+-]{0,40}")  # a choice such as "bf16"; not a path


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The published part of a run's config.json or of the config in a checkpoint. The model's fields are not part of
    it: they are read from the model."""
    data = config.get("data", {})
    preparation = {"preparation": _some(data["preparation"], PREPARATION)} if data.get("preparation") else {}
    precision = {"precision": _some(config["precision"], PRECISION)} if config.get("precision") else {}
    return (
        _some(config, RUN)
        | precision
        | {
            "data": _some(data, DATA) | preparation,
            "args": {name: value for name, value in _some(config.get("args", {}), OPTIONS).items() if _is_plain(value)},
        }
    )


def public_results(results: Mapping[str, Any]) -> dict[str, Any]:
    """The published part of a run's results.json: scores of the model, of subgroups of the cohort and of baselines."""
    published = _some(results, RESULTS)
    published["protocol"] = {
        name: value for name, value in _some(results.get("protocol", {}), OPTIONS).items() if _is_plain(value)
    }
    for name, keys in (
        ("subgroups", ("name", "statistics")),
        ("baselines", ("name", "statistics", "model_minus_baseline")),
    ):
        published[name] = [_some(entry, keys) for entry in results.get(name, [])]
    return published


def _some(content: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and bool(WORD.fullmatch(value)))
