"""Write a run or a checkpoint as an exported folder (util/hub/exported_folder.py)."""

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
from util.hub.exported_folder import CARD, CONFIG, DIGEST, OURS, RESULTS, WEIGHTS, digest_of, is_exported, run_config_of
from util.patient.who_2021 import CLASS_NAMES
from util.run_folder import fold_folder, fold_number
from util.runs import read_config, read_metrics, write_json

if TYPE_CHECKING:
    from util.export.trained import Trained

TRAINING_FIELDS = ("scan_backend", "grad_checkpointing", "drop_path_rate")  # they do not change what weights mean
NO_LICENSE = "unknown"  # as the hub writes it


def write_exported_folder(
    destination: Path, models: Sequence["Trained"], main: "Trained", *, license: str | None = None
) -> None:
    """Write `models`, the folds of a run or a single model, to the folder `destination`, whole or not at all.

    main: the model that timm loads. license: the licence of the weights, as the hub writes it. An exported folder at
    `destination` is replaced; anything else there raises ValueError.
    """
    if destination.is_dir() and any(destination.iterdir()) and not is_exported(destination):
        raise ValueError(f"OUT {destination} holds something that was not exported: choose another name")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as name:
        folder = Path(name) / "new"
        _write(folder, models, main, license or NO_LICENSE)
        if destination.exists():
            destination.rename(Path(name) / "old")
        folder.rename(destination)


def _write(folder: Path, models: Sequence["Trained"], main: "Trained", license: str) -> None:
    is_run = recorded(main.content, "kind") == "finetune"
    run = main.checkpoint.parent.parent if is_run else main.checkpoint.parent
    results: dict[str, Any] | None = None
    versions = _versions_of(run)
    if is_run:
        start = _starting_weights(recorded(main.content, "finetune"))
        for trained in models:
            part = fold_folder(folder, fold_of(trained))
            _write_model(part, trained, license, {"fold": fold_of(trained), "started_from": start, **versions})
            if trained.decision is not None:
                trained.decision.save(part)
        for name in (CONFIG, WEIGHTS):
            _link(fold_folder(folder, fold_of(main)) / name, folder / name)
        if (run / RESULTS).is_file():
            results = public_results(json.loads((run / RESULTS).read_text(encoding="utf-8")))
            write_json(folder / RESULTS, results)
    else:
        _write_model(folder, main, license, versions)
    card = render_card(
        json.loads((folder / CONFIG).read_text(encoding="utf-8")),
        folds=[fold_of(trained) for trained in models] if is_run else [],
        results=results,
        metrics=[] if is_run else read_metrics(run),
    )
    with atomic_write(folder / CARD, "w") as file:
        file.write(card)


def _versions_of(run: Path) -> dict[str, Any]:
    """The versions of code and packages that a run folder records; {} if `run` is no run folder."""
    with suppress(ValueError):
        config = read_config(run)
        return {name: config[name] for name in ("git", "versions") if name in config}
    return {}


def fold_of(trained: "Trained") -> int:
    """The fold's number: as the checkpoint records it, else from the name of its folder, else 0."""
    if isinstance(fold := recorded(trained.content, "fold"), int):
        return fold
    return fold_number(trained.checkpoint.resolve().parent) or 0


def _write_model(folder: Path, trained: "Trained", license: str, more: Mapping[str, Any]) -> None:
    facts = {
        **public_config(trained.content["config"]),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "epoch": trained.content.get("epoch"),
        **more,
    }
    for_timm = _for_timm(trained, license)
    config = run_config_of(
        {**for_timm, OURS: facts}
    )  # also in the weights file, which may be copied without its folder
    save_safetensors(folder / WEIGHTS, {"model": trained.model.state_dict(), "epoch": facts["epoch"], "config": config})
    write_json(folder / CONFIG, {**for_timm, OURS: {**facts, DIGEST: digest_of(folder / WEIGHTS)}})


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
        "model_args": {key: value for key, value in asdict(trained.config).items() if key not in TRAINING_FIELDS},
        "pretrained_cfg": card,
    }


def _starting_weights(finetune: str | None) -> dict[str, Any] | None:
    """The published facts of the weights that a fine-tuning started from; None for random weights.

    The path of a checkpoint file is not published. Its facts are, if the file still exists.
    """
    if finetune is None:
        return None
    if is_hub_name(finetune):
        return {"name": finetune}
    with suppress(ValueError):
        content = read_checkpoint(finetune)
        if isinstance(config := content.get("config"), Mapping):
            known = public_config(config)
            facts = {name: known.get(name) for name in ("objective", "mask_ratio", "data")}
            return {"name": None, "architecture": registry_name(content).value, "epoch": content.get("epoch"), **facts}
    return {"name": None}


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; copy it on a file system without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
