"""Options that both trainings share, and what they mean."""

import argparse
import ast
import math
from pathlib import Path
from typing import Any, get_args

from util import project
from util.cli import Parser
from util.config import read_base_path
from util.data.device_input import AugmentWhere
from util.data.normalize import Normalize
from util.data.stand_ins import OnBadVolume
from util.process.stopping import STOPPED
from util.training.optim import PrecisionName
from util.training.saving import OnSaveError, SaveOptions, save_frequency

PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16")
AUGMENT_WHERE: tuple[AugmentWhere, ...] = ("loader", "device")
ON_BAD_VOLUME: tuple[OnBadVolume, ...] = ("stop", "skip")
WEIGHTS_FROM = "checkpoint, ours or a published one, exported folder or hf-hub:user/name[@revision]"
RUN_FROM = "run folder, exported folder or hf-hub:user/name[@revision]"
NORMALIZATIONS: tuple[Normalize, ...] = ("zscore", "zscore-joint", "range")


def add_model_options(parser: Parser, default_model: str) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default=default_model, help="a name from models.list_models(), or the paper's long name"
    )
    group.add_argument(
        "--input_size", type=positive, nargs="+", default=[160], metavar="SIDE", help="voxels, one or Z Y X"
    )
    group.add_argument("--drop_path", type=float, default=0.1, help="drop-path rate")
    group.add_argument(
        "--contrast_dropout",
        type=float,
        default=0.0,
        metavar="P",
        help="leave out each contrast of a training sample with this probability (one always stays), so that the model "
        "also takes patients who lack some; 0 for a model that needs all",
    )
    group.add_argument(
        "--fidelity", choices=("corrected", "paper"), default="corrected", help="see README, differences"
    )
    group.add_argument(
        "--scan_order",
        metavar="ORDER",
        help="in which order the tokens are read: raster, zxy, yzx, yxz, xzy, xyz (slowest axis first), snake, hilbert "
        "or shuffle; default raster, with --fidelity paper shuffle",
    )
    group.add_argument("--grad_checkpointing", action="store_true", help="recompute blocks in backward: less memory")
    group.add_argument("--model_kwargs", nargs="*", default=[], metavar="FIELD=VALUE", help="other ModelConfig fields")
    group.add_argument("--use_3d", action="store_true", help="accepted for the paper's commands; models are always 3D")


def add_data_options(parser: Parser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--name_dataset", default="brats-160", help="section of config.ini, with - for _")
    group.add_argument("--config", type=Path, default=project.FOLDER / "config.ini", help="paths file")
    group.add_argument("--data", type=Path, help="prepared folder, instead of the one that config.ini names")
    group.add_argument("--normalize", choices=NORMALIZATIONS, help="intensity normalisation; default zscore")
    group.add_argument("--use_z_score", action="store_true", help="the paper's flag for --normalize zscore")
    group.add_argument(
        "--augment",
        choices=AUGMENT_WHERE,
        default="device",
        help="where volumes are augmented and normalised: on batches at the model, or one by one by torchio in the "
        "data-loading processes",
    )
    group.add_argument("--no_augment", action="store_true", help="train on the volumes as they are")
    group.add_argument(
        "--on_bad_volume",
        choices=ON_BAD_VOLUME,
        default="stop",
        help="a volume that is missing, damaged or of another size: stop and name it, or let another subject (of the "
        "same class and part of the data) stand in for it and list it at the end; held-out ones are left out",
    )
    group.add_argument("--num_workers", type=int, default=2, help="data-loading processes per rank")
    group.add_argument("--pin_mem", action="store_true", default=True, help="page-locked host memory for CUDA")
    group.add_argument("--no_pin_mem", "--no_pin_men", action="store_false", dest="pin_mem", help="less host memory")


def add_training_options(parser: Parser, *, epochs: int, blr: float, warmup_epochs: float, weight_decay: float) -> None:
    group = parser.add_argument_group("training")
    group.add_argument("--batch_size", type=positive, default=4, help="subjects per rank and step")
    group.add_argument("--accum_iter", type=positive, default=1, help="steps whose gradients make one update")
    group.add_argument("--epochs", type=positive, default=epochs)
    group.add_argument("--lr", type=float, help="learning rate; default blr * subjects per update / 256")
    group.add_argument("--blr", type=float, default=blr, help="base learning rate")
    group.add_argument("--min_lr", type=float, default=0.0, help="where the cosine ends")
    group.add_argument("--warmup_epochs", type=float, default=warmup_epochs)
    group.add_argument("--weight_decay", type=float, default=weight_decay)
    group.add_argument("--clip_grad", type=float, help="largest gradient norm")
    group.add_argument(
        "--max_bad_steps",
        type=count,
        default=10,
        help="updates in a row that may be skipped because loss or gradient is not finite; one more ends the run",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="autocast type; scan state stays float32. On a CPU whose products in it are slower than in float32, all "
        "is float32",
    )
    group.add_argument(
        "--ema", type=float, metavar="DECAY", help="keep (and use) an exponential average of the weights"
    )


def add_run_options(parser: Parser, output_dir: str) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", type=Path, default=Path(output_dir), help="the run folder")
    group.add_argument("--log_dir", type=Path, help="TensorBoard folder; default the run folder")
    group.add_argument("--resume", help='a checkpoint, or "auto" for the newest in the run folder')
    group.add_argument("--overwrite", action="store_true", help="replace the run that the folder holds")
    group.add_argument(
        "--save_freq",
        type=frequency,
        default="20",
        help="time between checkpoints: epochs, or minutes such as 10min, then within epochs too; the end is always "
        "saved",
    )
    group.add_argument(
        "--keep_last",
        type=positive,
        metavar="N",
        help="delete all but the N newest checkpoints; default keeps those of finished epochs",
    )
    group.add_argument(
        "--on_save_error",
        choices=get_args(OnSaveError),
        default="stop",
        help="what to do where a checkpoint cannot be written (disk full, no permission); those before it stay",
    )
    group.add_argument(
        "--max_minutes",
        type=minutes,
        help=f"save and stop after so long, exit code {STOPPED}, as after SIGTERM, SIGINT or SIGUSR1; default: never",
    )
    group.add_argument(
        "--rank_timeout",
        type=minutes,
        default=30.0,
        help="minutes that a rank waits for the others before it gives up; set it above the time of the longest step",
    )
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--device", default="auto", help="auto, cpu or cuda")
    group.add_argument("--threads", type=positive, help="CPU threads of torch; default as torch chooses")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} must be at least 1")
    return value


def count(text: str) -> int:
    """A whole number of at least 0, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return value


def not_negative(text: str) -> float:
    """A number of at least 0, for argparse."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return value


def minutes(text: str) -> float:
    """A time above 0, for argparse."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be above 0 minutes")
    return value


def frequency(text: str) -> str:
    """What --save_freq takes, for argparse."""
    try:
        return save_frequency(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def save_options(args: argparse.Namespace) -> SaveOptions:
    return SaveOptions(args.save_freq, args.keep_last, args.on_save_error)


def parse_model_kwargs(pairs: list[str]) -> dict[str, Any]:
    """["depth=6", "mixer=attention"] -> {"depth": 6, "mixer": "attention"}."""
    fields = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"--model_kwargs {pair}: write FIELD=VALUE")
        try:
            fields[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            fields[name] = text
    return fields


def model_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The ModelConfig fields that both trainings set."""
    return {
        "img_size": image_size(args),
        "drop_path_rate": args.drop_path,
        "contrast_dropout": args.contrast_dropout,
        "fidelity": args.fidelity,
        "scan_order": args.scan_order,
        "grad_checkpointing": args.grad_checkpointing,
        **parse_model_kwargs(args.model_kwargs),
    }


def data_root(args: argparse.Namespace, key: str) -> Path:
    """The prepared folder: --data, or what `key` in config.ini's section names."""
    if args.data is not None:
        if not args.data.is_dir():
            raise ValueError(f"--data {args.data} is not a folder")
        return args.data
    return read_base_path(args.config, args.name_dataset.replace("-", "_"), key)


def normalization(args: argparse.Namespace) -> Normalize:
    if args.use_z_score and args.normalize not in (None, "zscore"):
        raise ValueError(f"--use_z_score and --normalize {args.normalize} contradict each other: drop one")
    if args.contrast_dropout and args.normalize == "zscore-joint":
        raise ValueError(
            f"--contrast_dropout {args.contrast_dropout} with --normalize zscore-joint: one mean of all contrasts "
            "changes when one is missing; normalise them one by one, --normalize zscore"
        )
    return args.normalize or "zscore"


def image_size(args: argparse.Namespace) -> tuple[int, int, int]:
    sides = args.input_size * 3 if len(args.input_size) == 1 else args.input_size
    if len(sides) != 3:
        raise ValueError(f"--input_size takes one side or three (Z Y X), not {len(sides)}")
    return tuple(sides)


def check_size(found: tuple[int, int, int], wanted: tuple[int, int, int], root: Path) -> None:
    """Raise ValueError where the prepared volumes are not of --input_size."""
    if found != wanted:
        hint = " ".join(map(str, found if len(set(found)) > 1 else found[:1]))
        raise ValueError(f"the volumes in {root} are {found}, --input_size says {wanted}: pass --input_size {hint}")


def plain(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON values, for config.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
