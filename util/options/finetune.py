"""Options of main_cr_finetune.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from util import ranges
from util.cli import WEIGHTS_FROM
from util.data.folder import LABEL_SHEET
from util.options.build import option
from util.options.groups import DataOptions, ModelOptions, RunOptions, TrainingOptions, check_options
from util.options.protocol import ProtocolOptions


@dataclass(frozen=True)
class FinetuneModelOptions(ModelOptions):
    finetune: Path | None = option(None, f"pre-trained {WEIGHTS_FROM}; default: none")
    nb_classes: int = option(2, "classes of the task; both tasks have 2", check=ranges.Whole(2, 1000))


@dataclass(frozen=True)
class FinetuneDataOptions(DataOptions):
    label_type: Literal["IDH", "1p19q"] = option("IDH", "column of the label sheet")
    labels: Path | None = option(None, f"label sheet; default {LABEL_SHEET} in the data folder")


@dataclass(frozen=True)
class FinetuneTrainingOptions(TrainingOptions):
    use_scheduler: bool = option(False, "warm-up and cosine; otherwise the learning rate stays at --lr")
    layer_decay: float = option(1.0, "factor on the learning rate per layer below the head", check=ranges.factor)
    smoothing: float = option(0.0, "label smoothing", check=ranges.part_or_none)
    mixup: float = option(0.0, "alpha of mixup, 0 for none", check=ranges.not_negative)
    cutmix: float = option(
        0.0,
        "alpha of CutMix, which copies a box from another volume, 0 for none; with --mixup each batch takes one of the "
        "two",
        check=ranges.not_negative,
        metavar="ALPHA",
    )
    freeze_trunk: bool = option(False, "train the head only; the trunk stays as --finetune gives it")
    class_weights: Literal["none", "balanced"] = option("none", "balanced: rare classes weigh more in the loss")


@dataclass(frozen=True)
class FinetuneRunOptions(RunOptions):
    eval_freq: int = option(1, "epochs between evaluations on the held-out part, for its curve", check=ranges.positive)
    eval: bool = option(False, "train nothing; score the folds that have checkpoints", free=True)


@dataclass(frozen=True)
class FinetuneOptions:
    data_key: ClassVar[str] = "TEST_BASE_PATH"  # of config.ini
    model: FinetuneModelOptions = FinetuneModelOptions()
    data: FinetuneDataOptions = FinetuneDataOptions()
    protocol: ProtocolOptions = ProtocolOptions()
    training: FinetuneTrainingOptions = FinetuneTrainingOptions()
    run: FinetuneRunOptions = FinetuneRunOptions()

    def __post_init__(self) -> None:
        check_options(self)
        if self.run.resume not in (None, "auto"):
            raise ValueError(f"--resume {self.run.resume}: every fold has its own checkpoints; use --resume auto")
        if self.model.nb_classes != 2:
            raise ValueError(f"--nb_classes {self.model.nb_classes}: {self.data.label_type} has 2 classes")
