"""A run or checkpoint as an exported folder (util/hub/exported_folder.py): written whole or not at all. Part of the
command `python -m util.checkpoint export`, like util/export/command.py."""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.pretrained import describe_weights
from util.checkpoint.facts import recorded
from util.checkpoint.files import read_checkpoint, save_safetensors
from util.checkpoint.matching import registry_name
from util.export.model_card import render_card
from util.export.public_facts import public_config, public_results
from util.files.atomic import atomic_write
from util.hub.download import is_hub_name
from util.hub.exported_folder import CARD, CONFIG, DIGEST, OURS, RESULTS, WEIGHTS, as_run, digest_of, is_exported
from util.patient.who_2021 import CLASS_NAMES
from util.run_folder import fold_folder, fold_number
from util.runs import read_config, read_metrics, write_json

if TYPE_CHECKING:
    from util.export.trained import Trained

AS_THEY_RAN = ("scan_backend", "grad_checkpointing", "drop_path_rate")  # fields that do not say what weights mean
NO_LICENSE = "unknown"  # as the hub writes it


def write_form(destination: Path, models: Sequence["Trained"], top: "Trained", *, license: str | None = None) -> None:
    """Write `models`, the folds of a run or a single model, into the folder `destination`; timm loads `top` from there.

    license: of the weights, as the hub writes it. An exported folder of that name is replaced; ValueError for a
    destination that holds something else.
    """
    if destination.is_dir() and any(destination.iterdir()) and not is_exported(destination):
        raise ValueError(f"OUT {destination} holds something that was not exported: choose another name")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as name:
        folder = Path(name) / "new"
        _write(folder, models, top, license or NO_LICENSE)
        if destination.exists():
            destination.rename(Path(name) / "old")
        folder.rename(destination)


def _write(folder: Path, models: Sequence["Trained"], top: "Trained", license: str) -> None:
    is_run = recorded(top.content, "kind") == "finetune"
    home = top.checkpoint.parent.parent if is_run else top.checkpoint.parent
    results: dict[str, Any] | None = None
    code = _code_of(home)
    if is_run:
        start = _start(recorded(top.content, "finetune"))
        for trained in models:
            part = fold_folder(folder, fold_of(trained))
            _write_model(part, trained, license, {"fold": fold_of(trained), "started_from": start, **code})
            if trained.decision is not None:
                trained.decision.save(part)
        for name in (CONFIG, WEIGHTS):
            _link(fold_folder(folder, fold_of(top)) / name, folder / name)
        if (home / RESULTS).is_file():
            results = public_results(json.loads((home / RESULTS).read_text(encoding="utf-8")))
            write_json(folder / RESULTS, results)
    else:
        _write_model(folder, top, license, code)
    card = render_card(
        json.loads((folder / CONFIG).read_text(encoding="utf-8")),
        folds=[fold_of(trained) for trained in models] if is_run else [],
        results=results,
        metrics=[] if is_run else read_metrics(home),
    )
    with atomic_write(folder / CARD, "w") as file:
        file.write(card)


def _code_of(run: Path) -> dict[str, Any]:
    """The versions that a run records in its folder only, if that is where the weights lie."""
    with suppress(ValueError):
        config = read_config(run)
        return {name: config[name] for name in ("git", "versions") if name in config}
    return {}


def fold_of(trained: "Trained") -> int:
    """As the checkpoint records it, else as its folder is named; 0 where nothing says so."""
    if isinstance(fold := recorded(trained.content, "fold"), int):
        return fold
    return fold_number(trained.checkpoint.resolve().parent) or 0


def _write_model(folder: Path, trained: "Trained", license: str, more: Mapping[str, Any]) -> None:
    said = {
        **public_config(trained.content["config"]),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "epoch": trained.content.get("epoch"),
        **more,
    }
    for_timm = _for_timm(trained, license)
    config = as_run({**for_timm, OURS: said})  # also in the file of the weights, which may go its own way
    save_safetensors(folder / WEIGHTS, {"model": trained.model.state_dict(), "epoch": said["epoch"], "config": config})
    write_json(folder / CONFIG, {**for_timm, OURS: {**said, DIGEST: digest_of(folder / WEIGHTS)}})


def _for_timm(trained: "Trained", license: str) -> dict[str, Any]:
    """The part of config.json that timm reads."""
    model: Any = trained.model
    label_type = recorded(trained.content, "label_type")
    names = {"label_names": list(CLASS_NAMES[label_type])} if label_type in CLASS_NAMES else {}
    card = describe_weights(trained.config, model.classifier, license=license).to_dict(remove_source=True)
    return {
        "architecture": recorded(trained.content, "model", "name"),
        "num_classes": card["num_classes"],
        "num_features": model.num_features,
        **names,
        "model_args": {key: value for key, value in asdict(trained.config).items() if key not in AS_THEY_RAN},
        "pretrained_cfg": card,
    }


def _start(finetune: str | None) -> dict[str, Any] | None:
    """What is known of the weights that a fine-tuning started from; None for random ones. Of a file its path is not
    said, and its own facts only where it is still there."""
    if finetune is None:
        return None
    if is_hub_name(finetune):
        return {"name": finetune}
    with suppress(ValueError):
        content = read_checkpoint(finetune)
        if isinstance(config := content.get("config"), Mapping):
            known = public_config(config)
            said = {name: known.get(name) for name in ("objective", "mask_ratio", "data")}
            return {"name": None, "architecture": registry_name(content).value, "epoch": content.get("epoch"), **said}
    return {"name": None}


def _link(source: Path, target: Path) -> None:
    """The same file under a second name, a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
