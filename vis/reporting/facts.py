"""The facts that a report states, read from run folders: plain values, nothing drawn, no model built."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from util.evaluation.predictions import Prediction, read_predictions
from util.hub.download import located
from util.hub.exported_folder import is_exported
from util.inference.open_run import is_phantom
from util.run_folder import CONFIG, METRICS, PREDICTIONS, RESULTS, fold_folders
from util.runs import newest_run, read_config, read_metrics
from vis.drawing.wording import METRIC_NAMES, task_words

NOTHING = "–"  # noqa: RUF001  what a table shows for a value that is not defined


@dataclass(frozen=True)
class RunFacts:
    """Of either kind of run."""

    folder: Path
    config: dict[str, Any]
    details: list[tuple[str, str]]
    """(name, text) of how the run was made."""
    phantom: bool


@dataclass(frozen=True)
class PretrainFacts(RunFacts):
    rows: list[dict[str, Any]]
    """metrics.jsonl, one per epoch."""


@dataclass(frozen=True)
class FinetuneFacts(RunFacts):
    rows_of_fold: dict[int, list[dict[str, Any]]]
    results: dict[str, Any] | None
    """results.json, None while no fold has finished."""
    predictions: list[Prediction]


def find_runs(pretrain: Path | None, finetune: Path | None) -> tuple[Path | None, Path | None]:
    """The runs to report on. Without names: the newest fine-tuning run and the pre-training that it started from, or
    the newest pre-training run. Runs that have nothing to do with each other are never put together unasked."""
    if pretrain is None and finetune is None:
        try:
            finetune = newest_run(kind="finetune")
        except ValueError:  # no such run
            return newest_run(kind="pretrain"), None
    if finetune is not None and pretrain is None:
        pretrain = origin(read_config(finetune))
    return pretrain, finetune


def origin(config: Mapping[str, Any]) -> Path | None:
    """The pre-training run that a fine-tuning run started from, if it is a run folder that is still there."""
    start = config.get("finetune")
    folder = Path(start).parent if start else None
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def pretrain_facts(folder: Path) -> PretrainFacts:
    config = _config_of(folder, "pretrain")
    rows = read_metrics(folder)
    ratio = config["mask_ratio"]
    task = ("Autoregressive" if ratio is None else "Mask ratio", task_words(ratio))
    details = [*_shared_details(folder, config), task]
    return PretrainFacts(folder, config, [*details, *_speed(rows)], is_phantom(config, _root(config)), rows)


def finetune_facts(folder: Path) -> FinetuneFacts:
    config = _config_of(folder, "finetune")
    rows_of_fold = {fold: rows for fold, part in fold_folders(folder).items() if (rows := read_metrics(part))}
    results_path, predictions_path = folder / RESULTS, folder / PREDICTIONS
    details = [*_shared_details(folder, config), ("Started from", str(config.get("finetune") or "random weights"))]
    return FinetuneFacts(
        folder,
        config,
        [*details, *_speed([row for rows in rows_of_fold.values() for row in rows])],
        is_phantom(config, _root(config)),
        rows_of_fold,
        json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() else None,
        read_predictions(predictions_path) if predictions_path.exists() else [],
    )


def fold_table(results: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Header, and rows (kind, cells): one per fold, then the mean with its SD, then all folds pooled.

    Metrics that an older run did not record are left out.
    """
    names = [name for name in METRIC_NAMES if name in results["pooled"]]
    header = ["Fold", "Subjects", *(METRIC_NAMES[name] for name in names)]
    rows = [
        ("fold", [str(row["fold"]), str(row["n"]), *(number(row[name]) for name in names)])
        for row in results["per_fold"]
    ]
    for kind, label in (("mean", "Mean of folds"), ("sd", "SD of folds")):
        rows.append((kind, [label, "", *(number(results[kind][name]) for name in names)]))
    pooled = [number(results["pooled"][name]) for name in names]
    return header, [*rows, ("pooled", ["All folds pooled", str(results["n"]), *pooled])]


def number(value: float | None) -> str:
    """Three decimals; a dash for a value that is not defined."""
    return NOTHING if value is None or value != value else f"{value:z.3f}"


def _config_of(folder: Path, kind: str) -> dict[str, Any]:
    config = read_config(folder)
    if is_exported(located(folder)):
        raise ValueError(f"{folder} was exported: its README.md says what is published; a report needs the run itself")
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
        ("Machine", config.get("machine") or NOTHING),
        ("Computed on", f"{config.get('device', NOTHING)}, {config.get('ranks', 1)} process(es)"),
        ("Code", f"git {config['git']}" if config.get("git") else "not under version control"),
        ("Versions", versions or NOTHING),
    ]


def _speed(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Seconds of training, subjects per second, memory, as far as they were recorded."""
    seconds = sum(row.get("seconds") or 0 for row in rows)
    rates = [row["samples_per_s"] for row in rows if row.get("samples_per_s")]
    memory = [row["peak_memory_mb"] for row in rows if row.get("peak_memory_mb")]
    parts = [f"{seconds / 60:.1f} minutes of training"] if seconds else []
    parts += [f"{sum(rates) / len(rates):.2f} subjects per second"] if rates else []
    parts += [f"peak memory {max(memory):.0f} MiB"] if memory else []
    return [("Speed", ", ".join(parts))] if parts else []
