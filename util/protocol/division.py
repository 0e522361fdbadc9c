"""The folds of a cross-validation and the record of how they were made."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from util.data.labels import read_columns
from util.options.groups import RunOptions
from util.options.protocol import ProtocolOptions
from util.protocol.folds import Fold, fold_hash, load_folds, make_folds, save_folds, set_aside
from util.protocol.folds_csv import read_folds_csv
from util.protocol.patients import log_patients, patients_of
from util.run_folder import FOLDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Division:
    """folds: k_fold for each repeat. patients: of each subject, empty without --group_by."""

    folds: list[Fold]
    patients: dict[str, str]
    k_fold: int
    design: dict[str, Any]

    @property
    def repeats(self) -> int:
        return len(self.folds) // self.k_fold

    def save(self, folder: Path, label_type: str, seed: int) -> None:
        save_folds(folder / FOLDS, self.folds, label_type=label_type, seed=seed, design=self.design)


def divide(
    options: ProtocolOptions,
    labels: Mapping[str, int],
    sheet: Path,
    run: RunOptions,
    label_type: str,
    root: Path | None = None,
) -> Division:
    """The folds that the run folder holds, or new ones; ValueError where it holds folds of another design.

    root: the prepared folder. Without --group_by, subjects that look like one patient there stay together.
    """
    path = run.output_dir / FOLDS
    design = {
        "k_fold": options.k_fold,
        "repeats": options.repeats,
        "stratify_by": options.stratify_by,
        "group_by": options.group_by,
        "val_fraction": options.val_fraction,
        "folds_csv": str(options.folds_csv) if options.folds_csv else None,
    }
    wanted = [name for name in (options.stratify_by, options.group_by) if name]
    columns = read_columns(sheet, wanted) if wanted else {}
    if options.group_by:
        patients = columns[options.group_by]
    else:
        patients = (patients_of(labels, root) if root is not None else {}) or None
    if path.exists() and not run.overwrite:
        folds = load_folds(path, labels, label_type)
        if not options.folds_csv and len(folds) != options.k_fold * options.repeats:
            raise ValueError(
                f"{path} holds {len(folds)} folds, --k_fold {options.k_fold} and --repeats {options.repeats} make "
                f"{options.k_fold * options.repeats}: take what it holds or another --output_dir"
            )
        _check_design(path, design)
        if split := _split_patient(folds, patients or {}):
            logger.warning('%s: fold %d trains and tests on what looks like one patient, "%s"', path, *split)
        return Division(folds, patients or {}, options.k_fold, design)
    if patients and not options.group_by:
        log_patients(patients)
    if options.folds_csv is not None:
        folds = read_folds_csv(options.folds_csv, labels, options.k_fold)
        _check_patients(folds, patients or {}, options)
    else:
        strata = columns[options.stratify_by] if options.stratify_by else None
        folds = make_folds(labels, options.k_fold, run.seed, strata=strata, patients=patients, repeats=options.repeats)
    if options.val_fraction:
        folds = set_aside(folds, labels, options.val_fraction, run.seed, patients)
    return Division(folds, patients or {}, options.k_fold, design)


def protocol_facts(options: ProtocolOptions, division: Division, seed: int, class_weights: str) -> dict[str, Any]:
    """How the numbers in results.json came about: the design of the folds, their hash, and the choices made."""
    return {
        **division.design,
        "repeats": division.repeats,
        "seed": seed,
        "folds_hash": fold_hash(division.folds),
        "select": options.select,
        "patience": options.patience,
        "calibrate": options.calibrate,
        "threshold": options.threshold,
        "tta": options.tta,
        "control": options.control,
        "class_weights": class_weights,
    }


def _check_design(path: Path, wanted: dict[str, Any]) -> None:
    """Raise ValueError where the folds of a run were made by another design; older runs, which record none, pass."""
    kept = json.loads(path.read_text(encoding="utf-8")).get("design", {})
    for name, value in kept.items():
        if name in wanted and wanted[name] != value:
            raise ValueError(
                f"{path} was made with --{name} {value}, not {wanted[name]}: repeat that option or use another "
                "--output_dir"
            )


def _check_patients(folds: list[Fold], patients: Mapping[str, str], options: ProtocolOptions) -> None:
    if split := _split_patient(folds, patients):
        how = f"--group_by {options.group_by}" if options.group_by else "by equal volumes or names of time points"
        fix = "" if options.group_by else ", or say whose each subject is with --group_by"
        raise ValueError(
            f'--folds_csv {options.folds_csv}: fold {split[0]} trains and tests on patient "{split[1]}" ({how}): put a '
            f"patient's subjects into one fold{fix}"
        )


def _split_patient(folds: list[Fold], patients: Mapping[str, str]) -> tuple[int, str] | None:
    """The first fold with a patient in two of its parts, and that patient."""
    for number, fold in enumerate(folds):
        seen: set[str] = set()
        for part in fold.values():
            owners = {patients[subject] for subject in part if patients.get(subject)}
            if shared := sorted(owners & seen):
                return number, shared[0]
            seen |= owners
    return None
