"""Read folds from a table with the columns subject, fold and, for a repeated cross-validation, repeat."""

import logging
from collections.abc import Mapping
from pathlib import Path

from util.files.text_table import Names, read_table
from util.protocol.folds import Fold, check_folds

logger = logging.getLogger(__name__)
FLAG = "--folds_csv"


def read_folds_csv(path: Path, labels: Mapping[str, int], k: int) -> list[Fold]:
    """repeats * k folds. Each row gives the fold (0 to k - 1) and repeat (default 0) in which a subject is tested.

    Folds and repeats that are counted from 1 are taken as counted from 0, with a warning. Subjects without a known
    label are ignored, and their number is logged. Raises ValueError with the file, the line and the fix.
    """
    if not path.is_file():
        raise ValueError(f"{FLAG} {path} does not exist")
    rows = [
        (f"{FLAG} {path}, line {row.line}", row.text("subject"), row.integer("fold"), row.integer("repeat", 0))
        for row in read_table(path, ("subject", "fold"), ("repeat",), flag=f"{FLAG} ")
    ]
    first_fold = _first("folds", [fold for _, _, fold, _ in rows], k, path)
    first_repeat = _first("repeats", [repeat for *_, repeat in rows], None, path)
    names = Names(labels, f"{FLAG} {path}")
    fold_of: dict[int, dict[str, int]] = {}
    unknown = set()
    for place, written, counted_fold, counted_repeat in rows:
        fold, repeat = counted_fold - first_fold, counted_repeat - first_repeat
        if not 0 <= fold < k or repeat < 0:
            raise ValueError(f"{place}: fold {fold}, repeat {repeat}; with --k_fold {k} folds are 0 to {k - 1}")
        subject = names.find(written)
        if subject is None:
            unknown.add(written)
            continue
        members = fold_of.setdefault(repeat, {})
        if subject in members:
            raise ValueError(f'{place}: subject "{subject}" is listed twice; keep one row')
        members[subject] = fold
    names.log_respelt()
    if unknown:
        logger.info("%s: %d subjects without a known label ignored", path, len(unknown))
    if sorted(fold_of) != list(range(len(fold_of))) or not fold_of:
        raise ValueError(f"{FLAG} {path} has repeats {sorted(fold_of)}; count them from 0 without gaps")
    folds = []
    for repeat in sorted(fold_of):
        members = fold_of[repeat]
        for fold in range(k):
            test = sorted(subject for subject, number in members.items() if number == fold)
            if not test:
                raise ValueError(f"{FLAG} {path} has no subject of known label in fold {fold} of repeat {repeat}")
            folds.append({"train": sorted(members.keys() - set(test)), "test": test})
    check_folds(folds, labels, f"{FLAG} {path}", "add or remove their rows")
    for number, fold in enumerate(folds):
        if len({labels[subject] for subject in fold["train"]}) < 2:
            raise ValueError(f"{FLAG} {path}: fold {number} leaves one class to train on; divide differently")
    return folds


def _first(what: str, numbers: list[int], count: int | None, path: Path) -> int:
    """1 where all numbers are counted from 1, else 0. count: how many there should be, None for any."""
    if not numbers or min(numbers) != 1 or (count is not None and max(numbers) != count):
        return 0
    logger.warning("%s %s counts %s from 1; they are taken as counted from 0", FLAG, path, what)
    return 1
