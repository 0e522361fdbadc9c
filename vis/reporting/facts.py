"""The facts of a report, read from run folders as plain values. No figure is drawn and no model is built."""

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from util.evaluation.predictions import Prediction, read_predictions
from util.hub.download import local_path
from util.hub.exported_folder import is_exported
from util.inference.open_run import is_phantom
from util.run_folder import CONFIG, METRICS, PREDICTIONS, RESULTS, fold_folders
from util.runs import newest_run, read_config, read_fold_config, read_metrics
from vis.drawing.wording import METRIC_NAMES, task_words

OF_FOLDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "Started from": lambda config: str(config.get("finetune") or "random weights"),
    "Intensities of folds": lambda config: str(config["data"]["normalize"]),
    "Seed of folds": lambda config: str(config.get("args", {}).get("seed")),
    "Learning rate of folds": lambda config: str(config.get("args", {}).get("lr")),
}
"""What --override may change between the folds of a run."""
NOT_DEFINED = "–"  # noqa: RUF001  shown in tables for a value that is not defined


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run of any kind."""

    folder: Path
    config: dict[str, Any]
    details: list[tuple[str, str]]
    """(name, text): technical details of the run."""
    phantom: bool


@dataclass(frozen=True)
class PretrainFacts(RunFacts):
    """Facts of a pre-training run."""

    rows: list[dict[str, Any]]
    """Rows of metrics.jsonl, one per epoch."""


@dataclass(frozen=True)
class FinetuneFacts(RunFacts):
    """Facts of a fine-tuning run."""

    rows_of_fold: dict[int, list[dict[str, Any]]]
    results: dict[str, Any] | None
    """Content of results.json. None while no fold has finished."""
    predictions: list[Prediction]


def find_runs(pretrain: Path | None, finetune: Path | None) -> tuple[Path | None, Path | None]:
    """The runs to report on.

    Default: the newest fine-tuning run and the pre-training run that it started from. If there is no fine-tuning run:
    the newest pre-training run. Unrelated runs are combined only if both are named.
    """
    if pretrain is None and finetune is None:
        try:
            finetune = newest_run(kind="finetune")
        except ValueError:  # no such run
            return newest_run(kind="pretrain"), None
    if finetune is not None and pretrain is None:
        pretrain = origin(read_config(finetune))
    return pretrain, finetune


def origin(config: Mapping[str, Any]) -> Path | None:
    """The pre-training run that a fine-tuning run started from. None if its run folder does not exist."""
    start = config.get("finetune")
    folder = Path(start).parent if start else None
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def pretrain_facts(folder: Path) -> PretrainFacts:
    """Read a pre-training run. ValueError if the folder is not one."""
    config = _config_of(folder, "pretrain")
    rows = read_metrics(folder)
    ratio = config["mask_ratio"]
    task = ("Autoregressive" if ratio is None else "Mask ratio", task_words(ratio))
    details = [*_shared_details(folder, config), task]
    return PretrainFacts(folder, config, [*details, *_speed(rows)], is_phantom(config, _root(config)), rows)


def finetune_facts(folder: Path) -> FinetuneFacts:
    """Read a fine-tuning run. ValueError if the folder is not one."""
    config = _config_of(folder, "finetune")
    rows_of_fold = {fold: rows for fold, part in fold_folders(folder).items() if (rows := read_metrics(part))}
    results_path, predictions_path = folder / RESULTS, folder / PREDICTIONS
    details = [*_shared_details(folder, config), *_of_folds(folder, rows_of_fold)]
    return FinetuneFacts(
        folder,
        config,
        [*details, *_speed([row for rows in rows_of_fold.values() for row in rows])],
        is_phantom(config, _root(config)),
        rows_of_fold,
        json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() else None,
        read_predictions(predictions_path) if predictions_path.exists() else [],
    )


def _of_folds(folder: Path, folds: Iterable[int]) -> list[tuple[str, str]]:
    """What folds of one run may differ in after --override, each value with its folds where there are several."""
    configs = {fold: read_fold_config(folder, fold) for fold in folds} or {0: read_config(folder)}
    told: list[tuple[str, str]] = []
    for title, value_of in OF_FOLDS.items():
        folds_of: dict[str, list[int]] = {}
        for fold, config in configs.items():
            folds_of.setdefault(value_of(config), []).append(fold)
        if len(folds_of) > 1:
            each = (f"{value} (fold {', '.join(map(str, members))})" for value, members in folds_of.items())
            told.append((title, "; ".join(each)))
        elif title == "Started from":
            told.append((title, next(iter(folds_of))))
    return told


def fold_table(results: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header and rows (kind, cells): one row per fold, then mean and SD of the folds, then all folds pooled.

    Metrics that an older run did not record are omitted.
    """
    names = [name for name in METRIC_NAMES if name in results["pooled"]]
    header = ["Fold", "Subjects", *(METRIC_NAMES[name] for name in names)]
    rows = [
        ("fold", [str(row["fold"]), str(row["n"]), *(format_number(row[name]) for name in names)])
        for row in results["per_fold"]
    ]
    for kind, label in (("mean", "Mean of folds"), ("sd", "SD of folds")):
        rows.append((kind, [label, "", *(format_number(results[kind][name]) for name in names)]))
    pooled = [format_number(results["pooled"][name]) for name in names]
    return header, [*rows, ("pooled", ["All folds pooled", str(results["n"]), *pooled])]


def format_number(value: float | None) -> str:
    """Three decimals, or a dash for a value that is not defined."""
    return NOT_DEFINED if value is None or value != value else f"{value:z.3f}"


def _config_of(folder: Path, kind: str) -> dict[str, Any]:
    config = read_config(folder)
    if is_exported(local_path(folder)):
        raise ValueError(
            f"{folder} is an exported model: its README.md says what it contains; a report needs the run folder"
        )
    if config.get("kind") != kind:
        raise ValueError(f"{folder} is not a {kind} run; give it as --{config.get('kind')}")
    return config


def _root(config: Mapping[str, Any]) -> Path:
    return Path(config["data"]["root"])


def _shared_details(folder: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    fields = config["model"]["fields"]
    size = fields["img_size"]
    sides = [size] * 3 if isinstance(size, int) else size
    model = (
        f"{config['model']['name']}: width {fields['embed_dim']}, {fields['depth']} blocks, "
        f"patch {fields['patch_size']}, volumes {' x '.join(map(str, sides))}"
    )
    if fields.get("scan_order"):
        model += f", scan order {fields['scan_order']}"
    versions = ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items() if version)
    written = max(path.stat().st_mtime for path in (folder / CONFIG, *folder.glob(f"**/{METRICS}")))
    return [
        ("Command", shlex.join(config.get("command", []))),
        ("Run folder", str(folder)),
        ("Last epoch written", f"{datetime.fromtimestamp(written).astimezone():%Y-%m-%d %H:%M %Z}"),
        ("Model", model),
        ("Data", f"{config['data']['root']}, intensities {config['data']['normalize']}"),
        ("Machine", config.get("machine") or NOT_DEFINED),
        ("Computed on", f"{config.get('device', NOT_DEFINED)}, {config.get('ranks', 1)} process(es)"),
        ("Code", f"git {config['git']}" if config.get("git") else "not under version control"),
        ("Versions", versions or NOT_DEFINED),
    ]


def _speed(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Training time, subjects per second and memory, if they were recorded."""
    seconds = sum(row.get("seconds") or 0 for row in rows)
    rates = [row["samples_per_s"] for row in rows if row.get("samples_per_s")]
    memory = [row["peak_memory_mb"] for row in rows if row.get("peak_memory_mb")]
    parts = [f"{seconds / 60:.1f} minutes of training"] if seconds else []
    parts += [f"{sum(rates) / len(rates):.2f} subjects per second"] if rates else []
    parts += [f"peak memory {max(memory):.0f} MiB"] if memory else []
    return [("Speed", ", ".join(parts))] if parts else []
