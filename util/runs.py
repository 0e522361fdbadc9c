"""Runs: how a run folder is started and read, and where the newest one is. Its files: util/run_folder.py."""

import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from util import project
from util.files.atomic import atomic_write
from util.hub.download import local_path
from util.hub.exported_folder import is_exported, read_exported_config, run_config_of, weights_of
from util.run_folder import CHECKPOINTS, CONFIG, METRICS, OF_A_RUN, checkpoint_place, fold_folder, fold_number

logger = logging.getLogger(__name__)
RunKind = Literal["pretrain", "finetune"]
RUN_ROOTS = (project.FOLDER / "runs", project.FOLDER / "demo_run")
RECORDED_PACKAGES = ("mamba-mae-3d", "torch", "timm", "torchio", "numpy", "scikit-learn", "mamba-ssm", "causal-conv1d")


def start_run(
    folder: Path,
    config: dict[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    changed: Mapping[str, Any] | None = None,
) -> None:
    """Create the run folder and write config.json with versions, git revision and command line added.

    overwrite: first remove what an earlier run left, its results and maps included, so that nothing of it is taken for
    a result of the new one. resume: a config.json that is there keeps describing what the run was started with, and its
    history gets the new command; options that --override has `changed` are taken from `config`, with all that follows
    from them. Raises ValueError where the folder already holds a run, unless that run is resumed or overwritten.
    """
    refuse_exported(folder)
    is_there = (folder / CONFIG).exists()
    if is_there and not (resume or overwrite):
        raise ValueError(
            f"--output_dir {folder} already holds a run: continue it with --resume auto, replace it with --overwrite, "
            f"or choose another folder"
        )
    if overwrite and not resume:
        for pattern in OF_A_RUN:
            for stale in folder.glob(pattern):
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    content, history = {**config, **environment()}, []
    if is_there and resume:
        stored = read_config(folder)
        history = _history(stored)
        if not changed:
            kept = {"precision": config["precision"]} if "precision" in config else {}  # of the present machine
            content = {**stored, **kept}
    write_json(folder / CONFIG, {**content, "history": [*history, _event(config, changed)]})


def record_command(folder: Path, config: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
    """Add this program's command, and what --override changed for it, to the history in config.json."""
    stored = read_config(folder)
    write_json(folder / CONFIG, {**stored, "history": [*_history(stored), _event(config, changed)]})


def _event(config: Mapping[str, Any], changed: Mapping[str, Any] | None) -> dict[str, Any]:
    where = {name: config[name] for name in ("device", "ranks", "precision") if name in config}
    return {**environment(), **where, "overridden": dict(changed or {})}


def _history(stored: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The commands of a run so far; of one that is older than this record, its first or only one."""
    names = ("command", "git", "versions", "machine", "device", "ranks", "precision")
    first = {name: stored[name] for name in names if name in stored}
    return list(stored.get("history", [{**first, "overridden": {}}]))


def refuse_exported(folder: Path) -> None:
    """ValueError where --output_dir is an exported folder: nothing can be trained, or scored on held-out subjects."""
    if is_exported(folder):
        raise ValueError(f"--output_dir {folder} holds an exported model: choose another folder")


def environment() -> dict[str, Any]:
    """What else a run depends on: command line, git revision, versions, machine."""
    versions = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "command": sys.argv,
        "git": None if project.IS_INSTALLED else _git_revision(),
        "versions": {"python": platform.python_version(), **versions},
        "machine": f"{cpu_name()}, {os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
    }


def _git_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    git = subprocess.run(command, cwd=project.FOLDER, capture_output=True, text=True, check=False)
    return git.stdout.strip() or None


def device_name(device: torch.device) -> str:
    """ "cpu", or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.processor() or "unknown CPU"


def write_json(path: Path, content: Any) -> None:
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def read_config(run: Path) -> dict[str, Any]:
    """The config.json of a run folder; of an exported one, or of one on the hub, what is published of it."""
    run = local_path(run)
    path = run / CONFIG
    if not path.is_file():
        raise ValueError(f"{run} is not a run folder: it has no {CONFIG}")
    return (
        run_config_of(read_exported_config(run)) if is_exported(run) else json.loads(path.read_text(encoding="utf-8"))
    )


def read_fold_config(run: Path, fold: int) -> dict[str, Any]:
    """The config.json of a fold, which may differ from its run's by what --override changed; the run's own where the
    fold has none, as in older and exported runs."""
    folder = fold_folder(run, fold)
    if (folder / CONFIG).is_file() and not is_exported(folder):
        return read_config(folder)
    return read_config(run)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder's metrics.jsonl; empty if there is none yet. A last line that was cut off is left out."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise ValueError(f"{path}, line {number} is damaged: remove the line, or restore the file") from None
            logger.warning("%s: the last line was cut off and is left out", path)
    return rows


def data_root(config: Mapping[str, Any]) -> Path | None:
    """The prepared folder that a run was trained on; None for an exported one, which does not say."""
    root = config["data"].get("root")
    return None if root is None else Path(root)


def newest_run(roots: Iterable[Path] = RUN_ROOTS, kind: RunKind = "pretrain") -> Path:
    """The run of this kind whose config.json is youngest, anywhere below `roots`."""
    roots = list(roots)
    found = [path for root in roots for path in root.rglob(CONFIG) if fold_number(path.parent) is None]
    runs = [path for path in found if json.loads(path.read_text(encoding="utf-8")).get("kind") == kind]
    if not runs:
        places = " or ".join(str(root) for root in roots)
        raise ValueError(f"no {kind} run below {places}: name one with --run, or make one with `make demo`")
    return max(runs, key=lambda path: path.stat().st_mtime).parent


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; the one file of weights of an exported folder."""
    if is_exported(folder):
        return [weights_of(folder)]
    placed = {}
    for path in folder.glob(CHECKPOINTS):
        if place := checkpoint_place(path):
            epoch, step = place
            placed[epoch, math.inf if step is None else step] = path
    return [placed[place] for place in sorted(placed)]


def last_checkpoint(folder: Path) -> Path:
    """The newest checkpoint of a folder."""
    found = checkpoints(folder)
    if not found:
        raise ValueError(f"{folder} holds no checkpoint-N.pth")
    return found[-1]
