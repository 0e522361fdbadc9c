"""Open the trained model of a run or a checkpoint for export."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from models import create_model
from models.config import ModelConfig
from util.checkpoint.facts import recorded
from util.checkpoint.files import Content, read_checkpoint
from util.checkpoint.loading import load_weights
from util.protocol.best_epoch import selected_weights
from util.protocol.decision import Decision, read_decision
from util.run_folder import DECISION, fold_folder, fold_folders
from util.runs import checkpoints, last_checkpoint, read_config


class Trained(NamedTuple):
    """A model with its weights, in evaluation mode on the CPU.

    content: the content of its checkpoint file. decision: the views, temperature and threshold of its fold; None for a
    model without folds, and for an epoch that its fold was not tested with.
    """

    checkpoint: Path
    content: Content
    model: nn.Module
    config: ModelConfig
    decision: Decision | None


def open_trained(source: Path, fold: int | None = None) -> Trained:
    """The model of a checkpoint file, of a pre-training run at its end, or of one fold of a fine-tuning run, at the
    epoch that the fold was tested with."""
    checkpoint, decision = _chosen(source, fold)
    content = read_checkpoint(checkpoint)
    name, fields = (recorded(content, "model", part) for part in ("name", "fields"))
    if name is None or fields is None:
        raise ValueError(f"checkpoint {checkpoint} does not record its model: give one that our programs saved")
    model = create_model(name, **fields)
    load_weights(model, checkpoint)
    config = model.config
    assert isinstance(config, ModelConfig)
    return Trained(checkpoint, content, model.eval(), config, decision)


def _chosen(source: Path, fold: int | None) -> tuple[Path, Decision | None]:
    """The checkpoint that `source` and `fold` select, and the decision of its fold."""
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
    folder = fold_folder(source, chosen)
    decision = read_decision(folder, config.get("args", {}))
    return selected_weights(folder, decision.select), decision


def trained_folds(run: Path) -> list[int]:
    """The folds of a fine-tuning run that have a checkpoint. Raises ValueError if none has."""
    folds = [fold for fold, folder in fold_folders(run).items() if checkpoints(folder)]
    if not folds:
        raise ValueError(f"{run} has no fold with a checkpoint: finish a fold with main_cr_finetune.py first")
    return folds


def _decision_beside(checkpoint: Path) -> Decision | None:
    """The decision of the fold in whose folder the checkpoint lies, if the fold was tested with this checkpoint."""
    folder = checkpoint.parent
    if not (folder / DECISION).is_file():
        return None
    decision = read_decision(folder, {})
    return decision if selected_weights(folder, decision.select).resolve() == checkpoint.resolve() else None


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds))
