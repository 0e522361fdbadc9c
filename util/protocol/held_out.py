"""The held-out subjects of a fine-tuned fold, from the run's folds.json."""

from pathlib import Path

from util.hub.download import is_hub_name
from util.hub.exported_folder import is_exported
from util.protocol.folds import read_unedited
from util.run_folder import FOLDS


def read_folds(run: Path) -> list[dict[str, list[str]]]:
    """The folds of a fine-tuning run. Raises ValueError if folds.json is missing or was edited, or if a fold tests a
    subject that it trains on."""
    path = run / FOLDS
    if not path.is_file() and (is_hub_name(run) or is_exported(run)):
        raise ValueError(
            f"{run} was exported without the names of its subjects, so the held-out ones are unknown: use predict.py "
            "for new patients; for held-out ones give the run itself, or put its folds.json into the exported folder"
        )
    if not path.is_file():
        raise ValueError(f"{path} is missing, so the held-out subjects are unknown; give a whole run with --run")
    folds = read_unedited(path, "fine-tune again")["folds"]
    for number, fold in enumerate(folds):
        if shared := sorted(set(fold["train"]) & set(fold["test"])):
            raise ValueError(f'{path}: fold {number} both trains and tests on "{shared[0]}"; run the fine-tuning again')
    return folds


def held_out(folds: list[dict[str, list[str]]], fold: int) -> list[str]:
    """The sorted test subjects of `fold`. Raises ValueError for a fold that does not exist."""
    if not 0 <= fold < len(folds):
        raise ValueError(f"--fold {fold}: the run has folds 0 to {len(folds) - 1}")
    return sorted(folds[fold]["test"])


def check_held_out(wanted: list[str], folds: list[dict[str, list[str]]], fold: int) -> None:
    """Raise ValueError for a subject that `fold` trained on, with the fold that holds it out."""
    for name in wanted:
        if name in folds[fold]["train"]:
            others = [str(number) for number, other in enumerate(folds) if name in other["test"]]
            hint = f"it is held out in fold {others[0]}: pass --fold {others[0]}" if others else "no fold holds it out"
            raise ValueError(f'--subjects: fold {fold} trained on "{name}", so its map is no held-out result; {hint}')
