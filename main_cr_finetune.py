"""Fine-tune a classifier with k-fold cross-validation and evaluate it on the held-out subjects.

python main_cr_finetune.py --model vim_3d_small_patch16 --finetune runs/pretrain/checkpoint-999.pth --label_type IDH
python main_cr_finetune.py ... --folds 0,3      only these folds; results are gathered from all folds that exist
python main_cr_finetune.py ... --eval           score the finished folds again
python main_cr_finetune.py ... --repeats 3 --stratify_by Grade --val_fraction 0.2 --select best_val --patience 20
python main_cr_finetune.py ... --control shuffled_labels        must fall to chance
"""

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune_fold import build_classifier, finished_fold, fold_folder, test_fold, train_fold
from util import cli
from util.data.cohort import Cohort, load_cohort
from util.data.controls import controlled
from util.data.folder import LABEL_SHEET
from util.distributed.world import World
from util.evaluation.cross_validation import PREDICTIONS, RAW_PREDICTIONS, Rivals, gather_results
from util.evaluation.predictions import write_predictions
from util.files.locks import locked, locked_by_main
from util.hub.download import pinned
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.protocol.division import FOLDS_FILE, Division, add_protocol_options, check_protocol, divide, protocol_facts
from util.runs import checkpoint_path, checkpoints, device_name, refuse_exported, start_run
from util.training import arguments
from util.training.data_failures import surviving
from util.training.precision import precision_of_run

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Fine-tune and evaluate a 3D classifier by k-fold cross-validation.")
    arguments.add_model_options(parser, "vim_3d_small_patch16")
    parser.add_argument("--finetune", type=Path, help=f"pre-trained {arguments.WEIGHTS_FROM}; default: none")
    parser.add_argument("--nb_classes", type=int, default=2, help="classes of the task; both tasks have 2")
    arguments.add_data_options(parser)
    parser.add_argument("--label_type", choices=("IDH", "1p19q"), default="IDH", help="column of the label sheet")
    parser.add_argument("--labels", type=Path, help=f"label sheet; default {LABEL_SHEET} in the data folder")
    add_protocol_options(parser)
    parser.add_argument("--folds", help="run only these, e.g. 0,3; default all")
    arguments.add_training_options(parser, epochs=100, blr=5e-4, warmup_epochs=5, weight_decay=0.05)
    parser.add_argument(
        "--use_scheduler", action="store_true", help="warm-up and cosine; otherwise the rate stays at --lr"
    )
    parser.add_argument(
        "--layer_decay", type=float, default=1.0, help="factor on the learning rate per layer below the head"
    )
    parser.add_argument("--smoothing", type=float, default=0.0, help="label smoothing")
    parser.add_argument("--mixup", type=arguments.not_negative, default=0.0, help="mixup alpha, 0 for none")
    parser.add_argument(
        "--cutmix", type=arguments.not_negative, default=0.0, metavar="ALPHA",
        help="of boxes cut from another volume, 0 for none; with --mixup each batch takes one of the two",
    )  # fmt: skip
    parser.add_argument(
        "--freeze_trunk", action="store_true", help="train the head only, on what --finetune has learnt"
    )
    parser.add_argument(
        "--class_weights",
        choices=("none", "balanced"),
        default="none",
        help="balanced: rare classes weigh more",
    )
    arguments.add_run_options(parser, "runs/finetune")
    parser.add_argument(
        "--eval_freq", type=arguments.positive, default=1, help="epochs between looks at the held-out curve"
    )
    parser.add_argument("--eval", action="store_true", help="train nothing; score the folds that have checkpoints")
    return parser.parse_args(argv)


def selected_folds(option: str | None, count: int) -> list[int]:
    """ "0,3" -> [0, 3]; None -> all."""
    if option is None:
        return list(range(count))
    try:
        folds = sorted({int(part) for part in option.split(",")})
    except ValueError:
        raise ValueError(f"--folds {option}: write fold numbers separated by commas, e.g. 0,3") from None
    if not all(0 <= fold < count for fold in folds):
        raise ValueError(f"--folds {option}: with this --k_fold and --repeats folds are 0 to {count - 1}")
    return folds


def open_cohort(args: argparse.Namespace) -> Cohort:
    root = arguments.data_root(args, "TEST_BASE_PATH")
    cohort = load_cohort(
        root,
        args.label_type,
        sheet=args.labels,
        normalize=arguments.normalization(args),
        on_bad_volume=args.on_bad_volume,
    )
    arguments.check_size(cohort.volumes.size, arguments.image_size(args), root)
    return cohort


def start_folds(args: argparse.Namespace, division: Division, config: dict[str, Any]) -> None:
    """Make the run folder, or join one where other jobs work on other folds: folds.json stays as the first wrote it."""
    with locked(args.output_dir, "the run's folds.json", "try again in a moment", wait_s=60):
        if args.overwrite:
            for folder in args.output_dir.glob("fold_*"):
                with locked(folder, folder.name, "wait for that job before --overwrite"):
                    pass
        continues = args.resume is not None or args.folds is not None  # other folds may already be here
        start_run(args.output_dir, config, resume=continues, overwrite=args.overwrite)
        if not (args.output_dir / FOLDS_FILE).exists():
            division.save(args.output_dir, args.label_type, args.seed)


def is_finished(args: argparse.Namespace, fold: int) -> bool:
    """Whether the fold has been trained to its end, which --patience may set before the last epoch, and predicted."""
    folder = fold_folder(args, fold)
    is_trained = checkpoint_path(folder, args.epochs - 1).exists() or args.patience is not None
    return (folder / PREDICTIONS).exists() and is_trained


def folds_to_run(args: argparse.Namespace, count: int) -> list[int]:
    """What --folds says; with --eval and without --folds, those that have checkpoints."""
    folds = selected_folds(args.folds, count)
    if not args.eval or args.folds is not None:
        return folds
    trained = [fold for fold in folds if checkpoints(fold_folder(args, fold))]
    if not trained:
        raise ValueError(f"--eval: no fold of {args.output_dir} has a checkpoint yet")
    return trained


def cross_validate(args: argparse.Namespace, world: World, stop: StopRequest) -> None:
    if args.resume not in (None, "auto"):
        raise ValueError(f"--resume {args.resume}: every fold has its own checkpoints; use --resume auto")
    if args.nb_classes != 2:
        raise ValueError(f"--nb_classes {args.nb_classes}: {args.label_type} has 2 classes")
    check_protocol(args)
    refuse_exported(args.output_dir)
    cohort = open_cohort(args)
    volumes = controlled(cohort.volumes, args.control, args.seed)
    labels = {subject: volumes.label(subject) for subject in volumes.subjects}  # shuffled ones stratify their own folds
    division = divide(args, labels, cohort.sheet)
    chosen = folds_to_run(args, len(division.folds))
    starts_over = args.overwrite and args.resume is None and not args.eval
    precision = precision_of_run(args.precision, world, None if starts_over else args.output_dir)
    config = {
        "kind": "finetune",
        "label_type": args.label_type,
        "k_fold": args.k_fold,
        "repeats": division.repeats,
        "model": {"name": args.model, "fields": asdict(build_classifier(args).config)},
        "data": {**volumes.describe(), "labels": str(cohort.sheet.resolve())},
        "finetune": pinned(args.finetune) if args.finetune else None,
        "n_unknown": cohort.n_unknown,
        "device": device_name(world.device),
        "ranks": world.size,
        "precision": precision.plain(),
        "args": arguments.plain(args),
    }
    if not args.eval:
        world.together(lambda: start_folds(args, division, config))
        if not args.overwrite:  # another job may have been the first
            division = divide(args, labels, cohort.sheet)

    def run_fold(fold: int) -> None:
        if args.eval:
            states = finished_fold(args, fold, world)
        else:
            states = train_fold(args, fold, division.folds[fold], volumes, config, world, stop, precision.used)
        folder = fold_folder(args, fold)
        if states.raw is not None:
            found, _ = test_fold(args, states.raw, fold, division, volumes, world, precision.used)
            if world.is_main:
                write_predictions(folder / RAW_PREDICTIONS, found)
        found, decision = test_fold(args, states.tested, fold, division, volumes, world, precision.used)
        if world.is_main:
            decision.save(folder)
            write_predictions(folder / PREDICTIONS, found)  # the last file: it says that a fold is done

    with stop:
        for fold in chosen:
            remedy = "leave it to that job and choose others with --folds"
            with locked_by_main(world, fold_folder(args, fold), f"fold {fold}", remedy):
                if any(world.gather([args.resume is not None and not args.eval and is_finished(args, fold)])):
                    logger.info("fold %d is finished", fold)
                else:
                    run_fold(fold)
    if world.is_main:
        rivals = Rivals(cohort.volumes, volumes, cohort.sheet, division, args.baselines)
        gather_results(args.output_dir, rivals, args.label_type, cohort.n_unknown, protocol_facts(args, division))


def main(argv: list[str] | None = None) -> None:
    launch(parse(argv), surviving(cross_validate))


if __name__ == "__main__":
    cli.run(main)
