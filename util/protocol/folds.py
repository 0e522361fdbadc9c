"""The folds of a cross-validation, saved with a hash. They depend on labels and seed alone, so that all ranks agree.

Folds are stratified by label and, if asked for, by a second column. All subjects of a patient are in one part.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from util.runs import write_json

logger = logging.getLogger(__name__)
Fold = dict[str, list[str]]  # {"train": subjects, "test": subjects}, and "val" with --val_fraction


def make_folds(
    labels: Mapping[str, int],
    k: int,
    seed: int,
    *,
    strata: Mapping[str, str] | None = None,
    patients: Mapping[str, str] | None = None,
    repeats: int = 1,
) -> list[Fold]:
    """repeats * k folds of the subjects of `labels`; each repeat of k folds tests every subject once.

    strata: a second value to stratify by, such as the grade; values that are too rare for k folds are merged. patients:
    the patient of each subject; subjects of one patient stay together. Raises ValueError if a class has fewer patients
    than folds.
    """
    subjects = sorted(labels)
    classes = [labels[subject] for subject in subjects]
    owners = [(patients or {}).get(subject) or subject for subject in subjects]
    if k < 2:
        raise ValueError(f"--k_fold {k}: cross-validation needs at least 2 folds")
    if repeats < 1:
        raise ValueError(f"--repeats {repeats}: at least 1")
    if len(set(classes)) < 2:
        raise ValueError(
            f"all {len(subjects)} labelled subjects are of class {classes[0] if classes else '?'}: nothing to learn"
        )
    counts = Counter(label for label, _ in set(zip(classes, owners)))
    rarest, count = min(counts.items(), key=lambda item: (item[1], item[0]))
    if count < k:
        kind = "subjects" if patients is None else "patients"
        raise ValueError(
            f"class {rarest} has {count} {kind}, fewer than --k_fold {k}: use --k_fold {count} or add data"
        )
    cells = classes if strata is None else _merged(classes, [strata.get(subject, "") for subject in subjects], k)
    folds = []
    for repeat in range(repeats):
        state = seed if repeat == 0 else int(np.random.SeedSequence((seed, repeat)).generate_state(1)[0])
        if patients is None:
            parts = StratifiedKFold(k, shuffle=True, random_state=state).split(subjects, cells)
        else:
            parts = StratifiedGroupKFold(k, shuffle=True, random_state=state).split(subjects, cells, owners)
        folds += [{"train": [subjects[i] for i in train], "test": [subjects[i] for i in test]} for train, test in parts]
    return folds


def set_aside(
    folds: list[Fold], labels: Mapping[str, int], fraction: float, seed: int, patients: Mapping[str, str] | None = None
) -> list[Fold]:
    """The same folds with `fraction` of the patients of each training part as "val", stratified by label. Test parts do
    not change."""
    if not 0 < fraction < 1:
        raise ValueError(f"--val_fraction {fraction} must lie between 0 and 1, e.g. 0.2")
    divided = []
    for number, fold in enumerate(folds):
        owner = {subject: (patients or {}).get(subject) or subject for subject in fold["train"]}
        label_of: dict[str, int] = {}
        for subject, name in owner.items():
            label_of[name] = max(labels[subject], label_of.get(name, 0))
        names = sorted(label_of)
        state = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        try:
            _, chosen = train_test_split(
                names, test_size=fraction, random_state=state, stratify=[label_of[name] for name in names]
            )
        except ValueError as error:
            raise ValueError(
                f"--val_fraction {fraction} cannot divide the {len(names)} patients of fold {number}'s training part "
                f"by class: use another fraction, fewer folds or more data ({error})"
            ) from None
        validation = set(chosen)
        val = {subject for subject, name in owner.items() if name in validation}
        divided.append(
            {"train": [s for s in fold["train"] if s not in val], "val": sorted(val), "test": fold["test"]}
        )  # fmt: skip
    return divided


def fold_hash(folds: list[Fold]) -> str:
    """The SHA-256 of the folds' subjects."""
    return hashlib.sha256(json.dumps(folds, sort_keys=True).encode()).hexdigest()


def save_folds(
    path: Path, folds: list[Fold], *, label_type: str, seed: int, design: Mapping[str, Any] | None = None
) -> None:
    """Write folds.json. design: the options that the folds were made with, for readers."""
    content = {"label_type": label_type, "seed": seed, "design": dict(design or {}), "hash": fold_hash(folds)}
    write_json(path, {**content, "folds": folds})


def read_unedited(path: Path, remedy: str) -> dict[str, Any]:
    """The content of a folds.json. Raises ValueError, with `remedy`, if its hash does not match its folds."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content.get("hash") != fold_hash(content["folds"]):
        raise ValueError(f"{path} was edited: its hash does not match its folds; restore it, or {remedy}")
    return content


def load_folds(
    path: Path, labels: Mapping[str, int], label_type: str, remedy: str = "use another --output_dir"
) -> list[Fold]:
    """Read folds.json. Raises ValueError, with `remedy`, if the file was edited, if it is for another label type, or if
    it does not cover exactly the labelled subjects."""
    content = read_unedited(path, remedy)
    folds: list[Fold] = content["folds"]
    if content["label_type"] != label_type:
        raise ValueError(f"{path} holds folds for {content['label_type']}, not {label_type}: {remedy}")
    check_folds(folds, labels, str(path), remedy)
    return folds


def check_folds(folds: list[Fold], labels: Mapping[str, int], source: str, remedy: str) -> None:
    """Raise ValueError unless the folds test every subject of `labels`, and no other, equally often, and no subject is
    in two parts of a fold."""
    tested = Counter(subject for fold in folds for subject in fold["test"])
    if differing := sorted(tested.keys() ^ set(labels)):
        raise ValueError(
            f"{source} and the labelled data differ in {len(differing)} subjects, e.g. {differing[:3]}: {remedy}"
        )
    if len(set(tested.values())) > 1:
        often = max(tested, key=lambda subject: tested[subject])
        raise ValueError(f'{source} tests some subjects more often than others, e.g. "{often}": {remedy}')
    for number, fold in enumerate(folds):
        counts = Counter([*fold["train"], *fold.get("val", []), *fold["test"]])
        if shared := [subject for subject, count in counts.items() if count > 1]:
            raise ValueError(f'{source}: fold {number} has "{shared[0]}" in two of its parts: {remedy}')


def _merged(classes: list[int], values: list[str], k: int) -> list[str]:
    """(class, value) as text. A value with fewer than k subjects of a class is merged with the most frequent value."""
    counts = Counter(zip(classes, values))
    most_frequent = {
        label: max((c for c in sorted(counts) if c[0] == label), key=lambda c: counts[c])[1] for label in set(classes)
    }
    for label, value in sorted(cell for cell, count in counts.items() if count < k):
        logger.info(
            '--stratify_by: "%s" has %d subjects of class %d, merged with "%s"',
            value,
            counts[label, value],
            label,
            most_frequent[label],
        )
    return [
        f"{label} {value if counts[label, value] >= k else most_frequent[label]}"
        for label, value in zip(classes, values)
    ]
