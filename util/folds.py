"""Stratified folds by subject, saved with a hash: made once, from labels and seed alone, the same on every rank."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sklearn.model_selection import StratifiedKFold

from util.runs import write_json

Fold = dict[str, list[str]]  # {"train": subjects, "test": subjects}


def make_folds(labels: Mapping[str, int], k: int, seed: int) -> list[Fold]:
    """k folds of the subjects of `labels` (all of known label), every subject tested exactly once.

    Raises ValueError where a class has fewer subjects than folds.
    """
    subjects = sorted(labels)
    classes = [labels[subject] for subject in subjects]
    counts = Counter(classes)
    if k < 2:
        raise ValueError(f"--k_fold {k}: cross-validation needs at least 2 folds")
    if len(counts) < 2:
        raise ValueError(
            f"all {len(subjects)} labelled subjects are of class {classes[0] if classes else '?'}: nothing to learn"
        )
    rarest, count = min(counts.items(), key=lambda item: item[1])
    if count < k:
        raise ValueError(
            f"class {rarest} has {count} subjects, fewer than --k_fold {k}: use --k_fold {count} or add data"
        )
    splitter = StratifiedKFold(k, shuffle=True, random_state=seed)
    return [
        {"train": [subjects[i] for i in train], "test": [subjects[i] for i in test]}
        for train, test in splitter.split(subjects, classes)
    ]


def fold_hash(folds: list[Fold]) -> str:
    """SHA-256 of the folds' subjects."""
    return hashlib.sha256(json.dumps(folds, sort_keys=True).encode()).hexdigest()


def save_folds(path: Path, folds: list[Fold], *, label_type: str, seed: int) -> None:
    write_json(path, {"label_type": label_type, "seed": seed, "hash": fold_hash(folds), "folds": folds})


def load_folds(
    path: Path, labels: Mapping[str, int], label_type: str, remedy: str = "use another --output_dir"
) -> list[Fold]:
    """Folds from a file, checked: unedited (hash), of this label, and covering exactly the labelled subjects; `remedy`
    is what ValueError tells to do otherwise."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    folds: list[Fold] = content["folds"]
    if content["hash"] != fold_hash(folds):
        raise ValueError(f"{path} was edited: its hash does not match its folds; restore it, or {remedy}")
    if content["label_type"] != label_type:
        raise ValueError(f"{path} holds folds for {content['label_type']}, not {label_type}: {remedy}")
    tested = sorted(subject for fold in folds for subject in fold["test"])
    if tested != sorted(labels):
        odd = sorted(set(tested) ^ set(labels))
        raise ValueError(f"{path} and the labelled data differ in {len(odd)} subjects, e.g. {odd[:3]}: {remedy}")
    return folds
