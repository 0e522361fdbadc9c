"""The files of a run folder: every name that trainings and the programs after them write, in one place.

RUN/config.json             model, data, options, versions and machine of the run
RUN/checkpoint-N.pth        after epoch N; checkpoint-N-step-S.pth within it
RUN/metrics.jsonl           a line per epoch, beside the TensorBoard events
RUN/stopped.json            where a training stands that was asked to stop
RUN/fold_K/                 of a fine-tuning run: config.json, checkpoints and metrics of a fold, best.pth (--select
                            best_val), decision.json and predictions.csv, predictions_raw.csv beside an average (--ema)
RUN/folds.json              the subjects of every fold
RUN/predictions.csv         of all folds, with results.json and results.xlsx
RUN/contrasts.csv, .json    scores with fewer contrasts
RUN/reference/              features of held-out subjects, for predict.py
RUN/vis/                    maps and figures; vis/truth/ holds the checks of maps
"""

import re
from pathlib import Path

CONFIG = "config.json"
METRICS = "metrics.jsonl"
EVENTS = "events.out.tfevents.*"
STOPPED = "stopped.json"
FOLDS = "folds.json"
BEST = "best.pth"
DECISION = "decision.json"
PREDICTIONS, RAW_PREDICTIONS = "predictions.csv", "predictions_raw.csv"
RESULTS, WORKBOOK = "results.json", "results.xlsx"
CONTRASTS, CONTRASTS_TABLE = "contrasts.json", "contrasts.csv"
REFERENCE_FEATURES = "reference"
MAPS = "vis"
MAP_CHECKS = f"{MAPS}/truth"
CHECKPOINTS = "checkpoint-*.pth"
FOLD_FOLDERS = "fold_*"

# What --overwrite removes: everything but config.json, which it replaces.
OF_A_RUN = (
    f"{CHECKPOINTS}*", FOLD_FOLDERS, STOPPED, METRICS, EVENTS, BEST, FOLDS, PREDICTIONS, RESULTS, WORKBOOK, CONTRASTS,
    CONTRASTS_TABLE, REFERENCE_FEATURES, MAPS,
)  # fmt: skip
_CHECKPOINT = re.compile(r"checkpoint-(\d+)(?:-step-(\d+))?\.pth")
_FOLD = re.compile(r"fold_(\d+)")


def fold_name(fold: int) -> str:
    return f"fold_{fold}"


def fold_folder(run: Path, fold: int) -> Path:
    return run / fold_name(fold)


def fold_folders(run: Path) -> dict[int, Path]:
    """The folders of the folds that a run has, by fold in ascending order."""
    numbered = {fold: path for path in run.glob(FOLD_FOLDERS) if (fold := fold_number(path)) is not None}
    return dict(sorted(numbered.items()))


def fold_number(folder: Path) -> int | None:
    """The fold that a folder is named after; None for any other folder."""
    named = _FOLD.fullmatch(folder.name)
    return int(named[1]) if named else None


def checkpoint_path(folder: Path, epoch: int, step: int | None = None) -> Path:
    """checkpoint-N.pth after epoch N, checkpoint-N-step-S.pth after S batches of it."""
    return folder / (f"checkpoint-{epoch}.pth" if step is None else f"checkpoint-{epoch}-step-{step}.pth")


def checkpoint_place(path: Path) -> tuple[int, int | None] | None:
    """(epoch, step or None) that the name of a checkpoint says; None for another file."""
    named = _CHECKPOINT.fullmatch(path.name)
    return (int(named[1]), int(named[2]) if named[2] else None) if named else None


def is_within_epoch(checkpoint: Path) -> bool:
    """Whether a checkpoint's name says that it was saved before its epoch was over."""
    place = checkpoint_place(checkpoint)
    return place is not None and place[1] is not None
