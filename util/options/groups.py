"""Groups of options that both trainings share: model, data, training and run."""

import argparse
import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from util import project, ranges
from util.config import read_base_path
from util.data.device_input import AugmentWhere
from util.data.normalize import Normalize
from util.data.stand_ins import OnBadVolume
from util.options.build import option
from util.process.stopping import STOPPED

PrecisionName = Literal["fp32", "bf16", "fp16"]
OnSaveError = Literal["stop", "continue"]
FREQUENCY = re.compile(r"(\d+)|(\d+\.?\d*|\.\d+)min")


def frequency(text: str) -> str:
    """A number of epochs such as "20", or of minutes such as "10min", for argparse."""
    match = FREQUENCY.fullmatch(text)
    if match is None or float(match[1] or match[2]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write epochs, e.g. 20, or minutes, e.g. 10min")
    return text


@dataclass(frozen=True)
class ModelOptions:
    model: str = option("vim_3d_small_patch16", "a name from models.list_models(), or the paper's long name")
    input_size: tuple[int, ...] = option(
        (160,),
        "size of the volumes in voxels: one side of a cube, or Z Y X",
        check=ranges.Whole(1, 4096),
        metavar="SIDE",
        meaning=lambda sides: sides * 3 if len(sides) == 1 else sides,
    )
    drop_path: float = option(0.1, "drop-path rate", check=ranges.part_or_none)
    contrast_dropout: float = option(
        0.0,
        "probability with which training leaves out each contrast of a sample (one always stays); above 0 the model "
        "also takes patients who lack some, with 0 it needs all",
        check=ranges.part_or_none,
        metavar="P",
    )
    fidelity: Literal["corrected", "paper"] = option(
        "corrected", "paper: what the published code computes, see docs/method.md"
    )
    scan_order: str | None = option(
        None,
        "order in which the tokens are read: raster, zxy, yzx, yxz, xzy, xyz (slowest axis first), snake, hilbert or "
        "shuffle; default raster, with --fidelity paper shuffle",
        metavar="ORDER",
    )
    grad_checkpointing: bool = option(False, "recompute blocks in the backward pass: less memory, more time", free=True)
    model_kwargs: tuple[str, ...] = option(
        (), "other fields of ModelConfig", metavar="FIELD=VALUE", meaning=lambda pairs: parse_model_kwargs(pairs)
    )
    use_3d: bool = option(False, "accepted for the paper's commands; models are always 3D", free=True)

    @property
    def image_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) in voxels."""
        sides = self.input_size * 3 if len(self.input_size) == 1 else self.input_size
        if len(sides) != 3:
            raise ValueError(f"--input_size takes one side or three (Z Y X), not {len(sides)}")
        return sides

    def check_size(self, size: tuple[int, int, int], root: Path) -> None:
        """Raise ValueError where the prepared volumes of `root` are not of --input_size."""
        if size != self.image_size:
            hint = " ".join(map(str, size if len(set(size)) > 1 else size[:1]))
            raise ValueError(
                f"the volumes in {root} are {size}, --input_size says {self.image_size}: pass --input_size {hint}"
            )

    def model_fields(self) -> dict[str, Any]:
        """The fields of ModelConfig that these options set."""
        return {
            "img_size": self.image_size,
            "drop_path_rate": self.drop_path,
            "contrast_dropout": self.contrast_dropout,
            "fidelity": self.fidelity,
            "scan_order": self.scan_order,
            "grad_checkpointing": self.grad_checkpointing,
            **parse_model_kwargs(self.model_kwargs),
        }


@dataclass(frozen=True)
class DataOptions:
    name_dataset: str = option("brats-160", "section of config.ini that names the prepared folder, with - for _")
    config: Path = option(project.FOLDER / "config.ini", "file of paths")
    data: Path | None = option(None, "prepared folder, instead of the one that config.ini names")
    normalize: Normalize | None = option(
        None, "intensity normalisation; default zscore", meaning=lambda value: value or "zscore"
    )
    use_z_score: bool = option(False, "the paper's flag for --normalize zscore")
    augment: AugmentWhere = option(
        "device",
        "where volumes are augmented and normalised: device: batches, beside the model; loader: single volumes, by "
        "torchio in the data-loading processes",
    )
    no_augment: bool = option(False, "train on the volumes as they are")
    on_bad_volume: OnBadVolume = option(
        "stop",
        "what happens where a volume is missing, damaged or of another size: stop: the run ends and names it; skip: "
        "another subject (of the same class and part of the data) stands in for it, a list of them is logged at the "
        "end, and held-out subjects are left out",
    )
    num_workers: int = option(2, "data-loading processes per rank", check=ranges.processes, free=True)
    pin_mem: bool = option(True, "page-locked host memory for CUDA", off=("--no_pin_mem", "--no_pin_men"), free=True)

    def root(self, key: str) -> Path:
        """The prepared folder: --data, or what `key` in config.ini's section names."""
        if self.data is not None:
            if not self.data.is_dir():
                raise ValueError(f"--data {self.data} is not a folder")
            return self.data
        return read_base_path(self.config, self.name_dataset.replace("-", "_"), key)

    @property
    def normalization(self) -> Normalize:
        return self.normalize or "zscore"


@dataclass(frozen=True)
class TrainingOptions:
    batch_size: int = option(4, "subjects per rank and step", check=ranges.positive)
    accum_iter: int = option(1, "steps whose gradients make one update", check=ranges.positive)
    epochs: int = option(100, "passes over the training data", check=ranges.positive)
    lr: float | None = option(None, "learning rate; default blr * subjects per update / 256", check=ranges.rate)
    blr: float = option(5e-4, "base learning rate", check=ranges.rate)
    min_lr: float = option(0.0, "learning rate at the end of the cosine", check=ranges.rate)
    warmup_epochs: float = option(
        5.0, "epochs in which the learning rate rises linearly from 0", check=ranges.not_negative
    )
    weight_decay: float = option(0.05, "weight decay of AdamW", check=ranges.rate)
    clip_grad: float | None = option(None, "largest gradient norm", check=ranges.Real(0, 1e9, above=True))
    max_bad_steps: int = option(
        10,
        "updates in a row that may be skipped because loss or gradient is not finite; one more ends the run",
        check=ranges.count,
        free=True,
    )
    precision: PrecisionName = option(
        "fp32",
        "autocast type; the state of scans stays float32. On a CPU whose half-precision products are slower than those "
        "in float32, the run uses float32 throughout",
    )
    ema: float | None = option(
        None, "keep (and use) an exponential average of the weights", check=ranges.part, metavar="DECAY"
    )


@dataclass(frozen=True)
class RunOptions:
    output_dir: Path = option(Path("runs/finetune"), "the run folder", free=True)
    log_dir: Path | None = option(None, "TensorBoard folder; default the run folder", free=True)
    resume: str | None = option(None, 'a checkpoint, or "auto" for the newest in the run folder', free=True)
    overwrite: bool = option(False, "replace the run that the folder holds", free=True)
    override: bool = option(
        False,
        "let options differ from those of the run that --resume, --folds or --eval takes; recorded in config.json",
        free=True,
    )
    save_freq: str = option(
        "20",
        "time between checkpoints: epochs, or minutes such as 10min, then also within epochs; the end is always saved",
        check=frequency,
        free=True,
    )
    keep_last: int | None = option(
        None,
        "delete all but the N newest checkpoints; default keeps those of finished epochs",
        check=ranges.positive,
        metavar="N",
        free=True,
    )
    on_save_error: OnSaveError = option(
        "stop",
        "what happens where a checkpoint cannot be written (disk full, no permission); earlier checkpoints stay",
        free=True,
    )
    max_minutes: float | None = option(
        None,
        f"save and stop after this time, with exit code {STOPPED}, as after SIGTERM, SIGINT or SIGUSR1; default: never",
        check=ranges.minutes,
        free=True,
    )
    rank_timeout: float = option(
        30.0,
        "minutes that a rank waits for the others before it gives up; set it above the time of the longest step",
        check=ranges.minutes,
        free=True,
    )
    seed: int = option(0, "seed of weights, order, augmentation, masks and folds", check=ranges.seed)
    device: str = option("auto", "auto, cpu or cuda", free=True)
    threads: int | None = option(
        None, "CPU threads of torch; default as torch chooses", check=ranges.threads, free=True
    )


class TrainingProgram(Protocol):
    """The options of a program that trains: a dataclass with at least these groups."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def model(self) -> ModelOptions: ...

    @property
    def data(self) -> DataOptions: ...

    @property
    def training(self) -> TrainingOptions: ...

    @property
    def run(self) -> RunOptions: ...


def check_options(options: TrainingProgram) -> None:
    """Raise ValueError where options of the shared groups contradict each other."""
    data, contrast_dropout = options.data, options.model.contrast_dropout
    if data.use_z_score and data.normalize not in (None, "zscore"):
        raise ValueError(f"--use_z_score and --normalize {data.normalize} contradict each other: drop one")
    if contrast_dropout and data.normalize == "zscore-joint":
        raise ValueError(
            f"--contrast_dropout {contrast_dropout} with --normalize zscore-joint: one mean of all contrasts "
            "changes when one is missing; normalise them one by one, --normalize zscore"
        )


def parse_model_kwargs(pairs: tuple[str, ...] | list[str]) -> dict[str, Any]:
    """("depth=6", "mixer=attention") -> {"depth": 6, "mixer": "attention"}."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--model_kwargs {pair}: write FIELD=VALUE")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = text
    return values
