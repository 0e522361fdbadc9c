"""Options of the evaluation protocol: how a cross-validation is divided, what is chosen, and what is tested."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from util import ranges
from util.data.controls import Control
from util.options.build import option

Select = Literal["last", "best_val"]
Views = Literal["none", "flip"]
Baselines = Literal["all", "sheet", "none"]


@dataclass(frozen=True)
class ProtocolOptions:
    k_fold: int = option(5, "number of parts; each is held out in turn", check=ranges.Whole(2, 1000))
    repeats: int = option(
        1,
        "how often the subjects are divided anew; folds are numbered through all repeats",
        check=ranges.Whole(1, 1000),
    )
    stratify_by: str | None = option(
        None, "column of the label sheet that folds balance beside the label, e.g. Grade", metavar="COLUMN"
    )
    group_by: str | None = option(
        None,
        "column of the label sheet that names the patient; subjects of one patient stay in one fold",
        metavar="COLUMN",
    )
    folds_csv: Path | None = option(
        None, "file with columns subject, fold[, repeat] that gives the folds, instead of new ones", metavar="FILE"
    )
    val_fraction: float = option(
        0.0,
        "fraction of each training part that is set aside as validation part; 0 for none",
        check=ranges.part_or_none,
    )
    select: Select = option("last", "epoch to test: the last one, or the best on the validation part")
    patience: int | None = option(
        None, "stop a fold after this many epochs without a better one", check=ranges.positive, metavar="EPOCHS"
    )
    calibrate: Literal["none", "temperature"] = option(
        "none", "temperature: scale the log-odds by a temperature fitted on the validation part"
    )
    threshold: Literal["fixed", "val"] = option(
        "fixed", "fixed: 0.5; val: the threshold with the best balanced accuracy on the validation part"
    )
    tta: Views = option("none", "flip: average over the volume and its mirror image when predicting")
    control: Control = option(
        "none",
        "train and test without what a model should use: background: brain replaced by noise, no_tumour: tumour "
        "replaced, shuffled_labels: labels shuffled",
    )
    baselines: Baselines = option(
        "all",
        "simple models in the same folds: all: on columns of the label sheet and on images, sheet: on columns only",
    )
    folds: str | None = option(None, "run only these, e.g. 0,3; default all", free=True)

    def __post_init__(self) -> None:
        needs_val = {
            "--select best_val": self.select == "best_val",
            "--patience": self.patience is not None,
            "--calibrate temperature": self.calibrate == "temperature",
            "--threshold val": self.threshold == "val",
        }
        if self.val_fraction == 0 and (given := [flag for flag, is_given in needs_val.items() if is_given]):
            raise ValueError(f"{given[0]} chooses on a validation part: set one aside with --val_fraction 0.2")
        if self.patience is not None and self.select == "last":
            raise ValueError(
                "--patience stops after the best epoch, --select last would test a later one: use best_val"
            )
        if self.folds_csv is not None and (self.stratify_by or self.repeats > 1):
            raise ValueError("--folds_csv says how to divide: drop --stratify_by and --repeats")

    def fold_numbers(self, count: int) -> list[int]:
        """The folds that --folds names of `count`: "0,3" -> [0, 3]; all without it."""
        if self.folds is None:
            return list(range(count))
        try:
            numbers = sorted({int(part) for part in self.folds.split(",")})
        except ValueError:
            raise ValueError(f"--folds {self.folds}: write fold numbers separated by commas, e.g. 0,3") from None
        if not all(0 <= number < count for number in numbers):
            raise ValueError(f"--folds {self.folds}: with this --k_fold and --repeats folds are 0 to {count - 1}")
        return numbers
