"""How a cross-validation is divided and decided: the options, their checks, and the folds they give."""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from util.cli import Parser
from util.data.controls import Control
from util.data.labels import read_columns
from util.protocol.best_epoch import Select
from util.protocol.folds import Fold, fold_hash, load_folds, make_folds, save_folds, set_aside
from util.protocol.folds_csv import read_folds_csv
from util.protocol.tta import Views
from util.training.arguments import positive

FOLDS_FILE = "folds.json"
CHOICES = ("select", "patience", "calibrate", "threshold", "tta", "control", "class_weights")
DESIGN = ("k_fold", "repeats", "stratify_by", "group_by", "val_fraction", "folds_csv")


def add_protocol_options(parser: Parser) -> None:
    group = parser.add_argument_group("protocol")
    group.add_argument("--k_fold", type=int, default=5, help="parts that are held out in turn")
    group.add_argument("--repeats", type=positive, default=1, help="how often to divide anew; folds count through all")
    group.add_argument("--stratify_by", metavar="COLUMN", help="of the label sheet, beside the label; e.g. Grade")
    group.add_argument("--group_by", metavar="COLUMN", help="of the label sheet that names the patient; kept together")
    group.add_argument("--folds_csv", type=Path, metavar="FILE", help="columns subject, fold[, repeat]; instead of own")
    group.add_argument(
        "--val_fraction", type=float, default=0.0, help="of each training part, set aside for choosing; 0 for none"
    )
    group.add_argument(
        "--select", choices=get_args(Select), default="last", help="epoch to test: the last, or the best on validation"
    )
    group.add_argument("--patience", type=positive, metavar="EPOCHS", help="stop after so many without a better one")
    group.add_argument(
        "--calibrate", choices=("none", "temperature"), default="none", help="temperature fitted on validation"
    )
    group.add_argument(
        "--threshold", choices=("fixed", "val"), default="fixed", help="0.5, or the best on validation (balanced acc.)"
    )
    group.add_argument("--tta", choices=get_args(Views), default="none", help="average over the mirror image in tests")
    group.add_argument(
        "--control", choices=get_args(Control), default="none",
        help="train and test without what a model should use: brain as noise, tumour replaced, labels shuffled",
    )  # fmt: skip
    group.add_argument(
        "--baselines", choices=("all", "sheet", "none"), default="all",
        help="simple models in the same folds: on sheet columns and images, on sheet columns only, or none",
    )  # fmt: skip


def check_protocol(args: argparse.Namespace) -> None:
    """ValueError for options that contradict each other."""
    needs_val = {
        "--select best_val": args.select == "best_val",
        "--patience": args.patience is not None,
        "--calibrate temperature": args.calibrate == "temperature",
        "--threshold val": args.threshold == "val",
    }
    if args.val_fraction == 0 and (asked := [option for option, is_asked in needs_val.items() if is_asked]):
        raise ValueError(f"{asked[0]} chooses on a validation part: set one aside with --val_fraction 0.2")
    if args.patience is not None and args.select == "last":
        raise ValueError("--patience stops after the best epoch, --select last would test a later one: use best_val")
    if args.folds_csv is not None and (args.stratify_by or args.repeats > 1):
        raise ValueError("--folds_csv says how to divide: drop --stratify_by and --repeats")


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
        save_folds(folder / FOLDS_FILE, self.folds, label_type=label_type, seed=seed, design=self.design)


def divide(args: argparse.Namespace, labels: Mapping[str, int], sheet: Path) -> Division:
    """The folds that the run folder keeps, or new ones; ValueError where it keeps folds of another design."""
    path = args.output_dir / FOLDS_FILE
    design = {name: getattr(args, name) for name in DESIGN}
    design["folds_csv"] = str(args.folds_csv) if args.folds_csv else None
    wanted = [name for name in (args.stratify_by, args.group_by) if name]
    columns = read_columns(sheet, wanted) if wanted else {}
    patients = columns[args.group_by] if args.group_by else None
    if path.exists() and not args.overwrite:
        folds = load_folds(path, labels, args.label_type)
        if not args.folds_csv and len(folds) != args.k_fold * args.repeats:
            raise ValueError(
                f"{path} holds {len(folds)} folds, --k_fold {args.k_fold} and --repeats {args.repeats} make "
                f"{args.k_fold * args.repeats}: take what it holds or another --output_dir"
            )
        _check_design(path, design)
        return Division(folds, patients or {}, args.k_fold, design)
    if args.folds_csv is not None:
        folds = read_folds_csv(args.folds_csv, labels, args.k_fold)
        _check_patients(folds, patients or {}, args)
    else:
        strata = columns[args.stratify_by] if args.stratify_by else None
        folds = make_folds(labels, args.k_fold, args.seed, strata=strata, patients=patients, repeats=args.repeats)
    if args.val_fraction:
        folds = set_aside(folds, labels, args.val_fraction, args.seed, patients)
    return Division(folds, patients or {}, args.k_fold, design)


def protocol_facts(args: argparse.Namespace, division: Division) -> dict[str, Any]:
    """What results.json says of how numbers came about: the design of the folds, their hash, the choices made."""
    choices = {name: getattr(args, name) for name in CHOICES}
    return {**division.design, "repeats": division.repeats, "seed": args.seed, "folds_hash": fold_hash(division.folds),
            **choices}  # fmt: skip


def _check_design(path: Path, wanted: dict[str, Any]) -> None:
    """The folds of a run are those it began with; a run folder older than the record of a design passes."""
    kept = json.loads(path.read_text(encoding="utf-8")).get("design", {})
    for name, value in kept.items():
        if name in wanted and wanted[name] != value:
            raise ValueError(
                f"{path} was made with --{name} {value}, not {wanted[name]}: repeat that option or use another "
                "--output_dir"
            )


def _check_patients(folds: list[Fold], patients: Mapping[str, str], args: argparse.Namespace) -> None:
    for number, fold in enumerate(folds):
        owners = [{patients[subject] for subject in part if patients.get(subject)} for part in fold.values()]
        if shared := sorted(owners[0] & owners[1]):
            raise ValueError(
                f'--folds_csv {args.folds_csv}: fold {number} trains and tests on patient "{shared[0]}" '
                f"(--group_by {args.group_by}): put a patient's subjects into one fold"
            )
