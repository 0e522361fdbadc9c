"""`python -m util.checkpoint export`: a trained model in a form that other programs load. The only part of util that
builds models: imported by that command alone."""

import logging
from pathlib import Path
from typing import NamedTuple

from torch import nn

from models import create_model
from models.config import ModelConfig
from util.calibration import DECISION_FILE, Decision, read_decision
from util.checkpoint import load_weights
from util.checkpoint_facts import recorded
from util.checkpoint_files import Content, read_checkpoint
from util.runs import checkpoints, last_checkpoint, read_config
from util.selection import selected_weights

logger = logging.getLogger(__name__)
GRAPHS = {".pt2": "torch.export", ".onnx": "ONNX"}  # by suffix


class Trained(NamedTuple):
    """A model with weights, in evaluation mode on the CPU, and what is known of it. content: of its checkpoint file;
    decision: how its fold comes to probabilities and calls; None for an epoch that its fold was not tested with, and
    for a model without folds."""

    checkpoint: Path
    content: Content
    model: nn.Module
    config: ModelConfig
    decision: Decision | None


def export(
    source: Path, destination: Path, *, fold: int | None = None, license: str | None = None, overwrite: bool = False
) -> None:
    """Write the model of `source`, a run folder or a checkpoint file, in the form that the suffix of `destination`
    says; without one as a folder for timm and the hub. ValueError names the argument at fault and the fix."""
    if destination.suffix not in ("", *GRAPHS):
        known = ", ".join(f"{suffix} ({form})" for suffix, form in GRAPHS.items())
        raise ValueError(f"OUT {destination}: give a name that ends in one of {known}, or in none for a folder")
    if destination.exists() and not overwrite:
        raise ValueError(f"OUT {destination} exists: choose another name, or replace it with --overwrite")
    if destination.suffix:
        _export_graph(source, destination, fold)
    else:
        _export_folder(source, destination, fold, license)
    logger.info("wrote %s", destination)


def open_trained(source: Path, fold: int | None = None) -> Trained:
    """The model of a checkpoint file, of a pre-training run at its end, or of one fold of a fine-tuning run, at the
    epoch that the fold was tested with."""
    checkpoint, decision = _chosen(source, fold)
    content = read_checkpoint(checkpoint)
    name, fields = (recorded(content, "model", part) for part in ("name", "fields"))
    if name is None or fields is None:
        raise ValueError(f"checkpoint {checkpoint} does not say which model it is of: give one that our programs saved")
    model = create_model(name, **fields)
    load_weights(model, checkpoint)
    config = model.config
    assert isinstance(config, ModelConfig)
    return Trained(checkpoint, content, model.eval(), config, decision)


def _chosen(source: Path, fold: int | None) -> tuple[Path, Decision | None]:
    """The checkpoint that is meant, and how its fold decides."""
    if source.is_file():
        if fold is not None:
            raise ValueError(f"--fold {fold} names a fold of a run folder, and {source} is a file: leave it out")
        return source, _decision_beside(source)
    config = read_config(source)
    if config.get("kind") != "finetune":
        if fold is not None:
            raise ValueError(f"--fold {fold}: {source} is not a fine-tuning run and has no folds: leave it out")
        return last_checkpoint(source), None
    folds = trained_folds(source)
    if fold is None and len(folds) > 1:
        raise ValueError(f"{source} holds a model for each of its folds: choose one with --fold, of {_listed(folds)}")
    chosen = folds[0] if fold is None else fold
    if chosen not in folds:
        raise ValueError(f"--fold {chosen}: {source} has checkpoints of folds {_listed(folds)}")
    folder = source / f"fold_{chosen}"
    decision = read_decision(folder, config.get("args", {}))
    return selected_weights(folder, decision.select), decision


def trained_folds(run: Path) -> list[int]:
    """The folds of a fine-tuning run that have a checkpoint. ValueError where none has."""
    parts = [part.name.removeprefix("fold_") for part in run.glob("fold_*") if checkpoints(part)]
    folds = sorted(int(part) for part in parts if part.isdecimal())
    if not folds:
        raise ValueError(f"{run} has no fold with a checkpoint: let main_cr_finetune.py finish one")
    return folds


def _decision_beside(checkpoint: Path) -> Decision | None:
    """How the fold decides whose folder a checkpoint lies in, if it is the one that the fold was tested with."""
    folder = checkpoint.parent
    if not (folder / DECISION_FILE).is_file():
        return None
    decision = read_decision(folder, {})
    return decision if selected_weights(folder, decision.select).resolve() == checkpoint.resolve() else None


def _export_folder(source: Path, destination: Path, fold: int | None, license: str | None) -> None:
    from util.hub_export import write_form

    if source.is_dir() and read_config(source).get("kind") == "finetune":
        models = {number: open_trained(source, number) for number in trained_folds(source)}
        wanted = min(models) if fold is None else fold
        top = models[wanted] if wanted in models else open_trained(source, wanted)  # which says what is wrong
        write_form(destination, list(models.values()), top, license=license)
    else:
        top = open_trained(source, fold)
        write_form(destination, [top], top, license=license)


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds))


def _export_graph(source: Path, destination: Path, fold: int | None) -> None:
    from util.graph_export import write_onnx, write_program

    write = {".pt2": write_program, ".onnx": write_onnx}[destination.suffix]
    write(open_trained(source, fold), destination)
