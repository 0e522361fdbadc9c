"""Read folds from a CSV file with the columns subject, fold and, for a repeated cross-validation, repeat."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path

from util.protocol.folds import Fold, check_folds

logger = logging.getLogger(__name__)


def read_folds_csv(path: Path, labels: Mapping[str, int], k: int) -> list[Fold]:
    """repeats * k folds. Each row gives the fold (0 to k - 1) and repeat (default 0) in which a subject is tested.

    Subjects without a known label are ignored, and their number is logged. Raises ValueError with the file, the line
    and the fix.
    """
    if not path.is_file():
        raise ValueError(f"--folds_csv {path} does not exist")
    fold_of: dict[int, dict[str, int]] = {}
    unknown = set()
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if missing := [name for name in ("subject", "fold") if name not in (reader.fieldnames or [])]:
            raise ValueError(f"--folds_csv {path} has no column {', '.join(missing)}; name them in the first line")
        for row in reader:
            place, subject = f"--folds_csv {path}, line {reader.line_num}", (row["subject"] or "").strip()
            try:
                fold, repeat = int(row["fold"]), int(row.get("repeat") or 0)
            except (TypeError, ValueError):
                raise ValueError(f"{place}: fold and repeat are whole numbers counted from 0") from None
            if not 0 <= fold < k or repeat < 0:
                raise ValueError(f"{place}: fold {fold}, repeat {repeat}; with --k_fold {k} folds are 0 to {k - 1}")
            if subject not in labels:
                unknown.add(subject)
                continue
            members = fold_of.setdefault(repeat, {})
            if subject in members:
                raise ValueError(f'{place}: subject "{subject}" is listed twice; keep one row')
            members[subject] = fold
    if unknown:
        logger.info("%s: %d subjects without a known label ignored", path, len(unknown))
    if sorted(fold_of) != list(range(len(fold_of))) or not fold_of:
        raise ValueError(f"--folds_csv {path} has repeats {sorted(fold_of)}; count them from 0 without gaps")
    folds = []
    for repeat in sorted(fold_of):
        members = fold_of[repeat]
        for fold in range(k):
            test = sorted(subject for subject, number in members.items() if number == fold)
            if not test:
                raise ValueError(f"--folds_csv {path} has no subject of known label in fold {fold} of repeat {repeat}")
            folds.append({"train": sorted(members.keys() - set(test)), "test": test})
    check_folds(folds, labels, f"--folds_csv {path}", "add or remove their rows")
    for number, fold in enumerate(folds):
        if len({labels[subject] for subject in fold["train"]}) < 2:
            raise ValueError(f"--folds_csv {path}: fold {number} leaves one class to train on; divide differently")
    return folds
