"""Which subjects a fine-tuned fold may be shown on, read from its folds.json."""

import json
from pathlib import Path

from util.hub.download import is_hub_name
from util.hub.exported_folder import is_exported
from util.protocol.folds import fold_hash
from util.run_folder import FOLDS


def read_folds(run: Path) -> list[dict[str, list[str]]]:
    """The folds of a fine-tuning run; ValueError if there are none, if the file was edited (by its hash), or if one
    trained on what it tests."""
    path = run / FOLDS
    if not path.is_file() and (is_hub_name(run) or is_exported(run)):
        raise ValueError(
            f"{run} was exported without the names of its subjects, so nobody knows which are held out: use predict.py "
            "for new patients; for held-out ones give the run itself, or put its folds.json into the exported folder"
        )
    if not path.is_file():
        raise ValueError(f"{path} is missing, so nobody knows which subjects are held out; give a whole run with --run")
    content = json.loads(path.read_text(encoding="utf-8"))
    folds = content["folds"]
    if content.get("hash") != fold_hash(folds):
        raise ValueError(f"{path} was edited: its hash does not match its folds; restore it, or fine-tune again")
    for number, fold in enumerate(folds):
        if shared := sorted(set(fold["train"]) & set(fold["test"])):
            raise ValueError(f'{path}: fold {number} both trains and tests on "{shared[0]}"; run the fine-tuning again')
    return folds


def held_out(folds: list[dict[str, list[str]]], fold: int) -> list[str]:
    """Sorted subjects that `fold` did not train on; ValueError for a fold that does not exist."""
    if not 0 <= fold < len(folds):
        raise ValueError(f"--fold {fold}: the run has folds 0 to {len(folds) - 1}")
    return sorted(folds[fold]["test"])


def check_held_out(wanted: list[str], folds: list[dict[str, list[str]]], fold: int) -> None:
    """Raise ValueError for a name that `fold` trained on, saying in which fold it is held out."""
    for name in wanted:
        if name in folds[fold]["train"]:
            where = [str(number) for number, other in enumerate(folds) if name in other["test"]]
            hint = f"it is held out in fold {where[0]}: pass --fold {where[0]}" if where else "no fold holds it out"
            raise ValueError(f'--subjects: fold {fold} trained on "{name}", so its map would prove nothing; {hint}')
