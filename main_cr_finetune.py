"""Fine-tune a classifier with k-fold cross-validation and evaluate it on the held-out subjects.

python main_cr_finetune.py --model vim_3d_small_patch16 --finetune runs/pretrain/checkpoint-999.pth --label_type IDH
python main_cr_finetune.py ... --folds 0,3      only these folds; results are gathered from all folds that exist
python main_cr_finetune.py ... --eval           score the finished folds again
python main_cr_finetune.py ... --repeats 3 --stratify_by Grade --val_fraction 0.2 --select best_val --patience 20
python main_cr_finetune.py ... --control shuffled_labels        must fall to chance
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from engine_finetune import finetune_epoch, predict
from models import VolumeClassifier, create_model
from util import arguments, cli
from util.calibration import Decision, fit_decision, scaled
from util.checkpoint import load_pretrained, load_weights, read_checkpoint
from util.data.bad_volumes import report_stand_ins
from util.data.cohort import Cohort, load_cohort
from util.data.controls import controlled
from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.data.failures import surviving
from util.data.folder import LABEL_SHEET
from util.distributed import World
from util.fitting import Inside, fit
from util.folds import Fold
from util.gathering import PREDICTIONS, RAW_PREDICTIONS, Rivals, gather_results
from util.launch import launch
from util.loader import seed_all, train_loader
from util.locks import locked, locked_by_main
from util.metrics import classification_metrics
from util.mixing import VolumeMixup
from util.optim import Schedule, Stepper, build_optimizer, scaled_lr
from util.protocol import FOLDS_FILE, Division, add_protocol_options, check_protocol, divide, protocol_facts
from util.record import Record
from util.results import Prediction, write_predictions
from util.runs import checkpoint_path, checkpoints, device_name, last_checkpoint, start_run
from util.selection import BestEpoch, selected_weights
from util.stopping import StopRequest
from util.training import Training, average_of
from util.tta import FlipAveraged

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Fine-tune and evaluate a 3D classifier by k-fold cross-validation.")
    arguments.add_model_options(parser, "vim_3d_small_patch16")
    parser.add_argument("--finetune", type=Path, help="pre-trained checkpoint, ours or a published one; default: none")
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


def build_classifier(args: argparse.Namespace) -> VolumeClassifier:
    fields = arguments.model_fields(args)
    if args.freeze_trunk:
        fields["drop_path_rate"] = 0.0  # noise to a head, and nothing else
    model = create_model(args.model, num_classes=args.nb_classes, **fields)
    if not isinstance(model, VolumeClassifier):
        raise ValueError(
            f"--model {args.model} is an autoencoder; fine-tuning needs a classifier such as vim_3d_small_patch16"
        )
    return model


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


def loss_and_mixup(
    args: argparse.Namespace, labels: list[int], device: torch.device
) -> tuple[Callable, VolumeMixup | None]:
    """labels: of the training part, for --class_weights."""
    if args.mixup == args.cutmix == 0:
        weights = None
        if args.class_weights == "balanced":  # mean 1 over subjects, as scikit-learn's "balanced"
            counts = torch.bincount(torch.tensor(labels), minlength=args.nb_classes).clamp_min(1)
            weights = len(labels) / (args.nb_classes * counts.float().to(device))
        return nn.CrossEntropyLoss(weights, label_smoothing=args.smoothing), None
    if args.class_weights != "none":
        raise ValueError("--mixup and --cutmix mix labels, which --class_weights cannot weigh: use one of them")
    if args.batch_size % 2:
        raise ValueError(f"--mixup and --cutmix mix pairs: --batch_size {args.batch_size} must be even")
    mixup = VolumeMixup(args.mixup, args.cutmix, label_smoothing=args.smoothing, num_classes=args.nb_classes)
    return SoftTargetCrossEntropy(), mixup


def fold_folder(args: argparse.Namespace, fold: int) -> Path:
    return args.output_dir / f"fold_{fold}"


class States(NamedTuple):
    """Of a trained fold: the model that --select says and, where --ema kept an average, what it averages at the end."""

    tested: VolumeClassifier
    raw: VolumeClassifier | None


def train_fold(
    args: argparse.Namespace,
    fold: int,
    subjects: Fold,
    volumes: PreparedVolumes,
    config: dict[str, Any],
    world: World,
    stop: StopRequest,
) -> States:
    """A fresh model, trained on the fold's training part."""
    folder = fold_folder(args, fold)
    if args.resume is None and checkpoints(folder):
        raise ValueError(f"fold {fold} in {folder} has checkpoints: continue it with --resume auto, or --overwrite all")
    train_part, test_part = volumes.subset(subjects["train"]), volumes.subset(subjects["test"])
    val_part = volumes.subset(subjects["val"]) if subjects.get("val") else None
    training_volumes, to_input = training_input(train_part, args.augment, augment=not args.no_augment)
    loader = train_loader(
        training_volumes,
        batch_size=args.batch_size,
        world=world,
        seed=args.seed,
        num_workers=args.num_workers,
        pin_memory=args.pin_mem,
    )
    seed_all(args.seed, fold)  # the same weights on every rank
    model = build_classifier(args)
    if args.finetune is not None:
        load_pretrained(model, args.finetune)
    if args.freeze_trunk:
        model.requires_grad_(False).get_classifier().requires_grad_(True)
    model.to(world.device)
    lr = scaled_lr(args.lr, args.blr, args.batch_size, args.accum_iter, world.size)
    optimizer = build_optimizer(
        model, lr=lr, weight_decay=args.weight_decay, betas=(0.9, 0.999), layer_decay=args.layer_decay
    )
    stepper = Stepper(optimizer, world.device, args.precision, args.clip_grad)
    shape = "cosine" if args.use_scheduler else "constant"
    schedule = Schedule(lr, args.min_lr, args.warmup_epochs, args.epochs, shape)
    criterion, mixup = loss_and_mixup(args, labels_of(train_part).tolist(), world.device)
    average, saving = average_of(model, args.ema), arguments.save_options(args)
    training = Training(model, stepper, folder, {**config, "fold": fold}, world, average, saving)
    training.resume(args.resume)
    first_epoch = training.next_epoch
    best = BestEpoch(folder, training.config, patience=args.patience, is_main=world.is_main, first_epoch=first_epoch)
    log_dir = (args.log_dir or args.output_dir) / f"fold_{fold}"
    record = Record(folder, log_dir, is_main=world.is_main, first_epoch=training.next_epoch)
    logger.info("fold %d: %d subjects to train on, %d held out", fold, len(train_part), len(test_part))
    parallel = world.wrap(model)

    def run_epoch(epoch: int, inside: Inside) -> dict[str, float]:
        scalars = finetune_epoch(
            parallel,
            loader,
            world=world,
            criterion=criterion,
            mixup=mixup,
            to_input=to_input,
            stepper=stepper,
            schedule=schedule,
            epoch=epoch,
            seed=args.seed,
            inside=inside,
            accum_iter=args.accum_iter,
            ema=training.ema,
            record=record,
        )
        if (epoch + 1) % args.eval_freq == 0 or epoch + 1 == args.epochs:
            if val_part is not None:
                _, labels, found = scores(args, training.best_known, val_part, world)
                scalars |= best.look(epoch, training.best_known, labels, found)
            watched = {"test": training.best_known} | ({} if training.ema is None else {"test_raw": training.model})
            for title, state in watched.items():  # to be watched only: nothing is chosen by it
                _, labels, found = scores(args, state, test_part, world)
                metrics = classification_metrics(labels, found)
                scalars |= {f"{title}_{name}": metrics[name] for name in ("auc", "accuracy")}
        return scalars

    fit(
        training,
        run_epoch,
        epochs=args.epochs,
        record=record,
        stop=stop,
        max_bad_steps=args.max_bad_steps,
        is_over=best.is_over,
    )
    record.close()
    if args.select == "best_val":
        load_weights(training.best_known, best.path)
    report_stand_ins(world.gather(training_volumes.stand_ins()))
    return States(training.best_known, None if training.ema is None else training.model)


def finished_fold(args: argparse.Namespace, fold: int, world: World) -> States:
    """What the checkpoints of a trained fold hold."""
    folder, model = fold_folder(args, fold), build_classifier(args)
    load_weights(model, selected_weights(folder, args.select))
    content, raw = read_checkpoint(last_checkpoint(folder)), None
    if "raw_model" in content:
        raw = build_classifier(args).to(world.device)
        raw.load_state_dict(content["raw_model"])
    return States(model.to(world.device), raw)


class Scored(NamedTuple):
    """Subjects in the order of their volumes, without those whose volumes could not be used; probabilities of class
    1."""

    subjects: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


def scores(args: argparse.Namespace, model: nn.Module, volumes: PreparedVolumes, world: World) -> Scored:
    seen = FlipAveraged(model) if args.tta == "flip" else model
    found = predict(seen, volumes, world=world, batch_size=args.batch_size, precision=args.precision)
    subjects = [subject for subject in volumes.subjects if subject in found]
    labels, probabilities = ([of(subject) for subject in subjects] for of in (volumes.label, found.__getitem__))
    return Scored(subjects, np.array(labels), np.array(probabilities))


def labels_of(volumes: PreparedVolumes) -> np.ndarray:
    return np.array([volumes.label(subject) for subject in volumes.subjects])


def test_fold(
    args: argparse.Namespace, model: nn.Module, fold: int, division: Division, volumes: PreparedVolumes, world: World
) -> tuple[list[Prediction], Decision]:
    """Held-out predictions of a fold and how they came about; temperature and threshold, if asked for, come from its
    validation part."""
    decision, subjects = Decision(), division.folds[fold]
    if args.calibrate == "temperature" or args.threshold == "val":
        _, labels, found = scores(args, model, volumes.subset(subjects["val"]), world)
        decision = fit_decision(
            labels,
            found,
            fit_temperature=args.calibrate == "temperature",
            fit_threshold=args.threshold == "val",
        )
        logger.info("fold %d: temperature %.3f, threshold %.3f", fold, decision.temperature, decision.threshold)
    tested = scores(args, model, volumes.subset(subjects["test"]), world)
    probabilities = scaled(tested.probabilities, decision.temperature)
    predictions = [
        Prediction(
            subject, fold, volumes.label(subject), float(probability), fold // division.k_fold, decision.threshold,
            division.patients.get(subject, ""),
        )
        for subject, probability in zip(tested.subjects, probabilities, strict=True)
    ]  # fmt: skip
    return predictions, replace(decision, select=args.select, tta=args.tta)


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
    trained = [fold for fold in folds if checkpoints(args.output_dir / f"fold_{fold}")]
    if not trained:
        raise ValueError(f"--eval: no fold of {args.output_dir} has a checkpoint yet")
    return trained


def cross_validate(args: argparse.Namespace, world: World) -> None:
    if args.resume not in (None, "auto"):
        raise ValueError(f"--resume {args.resume}: every fold has its own checkpoints; use --resume auto")
    if args.nb_classes != 2:
        raise ValueError(f"--nb_classes {args.nb_classes}: {args.label_type} has 2 classes")
    check_protocol(args)
    cohort = open_cohort(args)
    volumes = controlled(cohort.volumes, args.control, args.seed)
    labels = {subject: volumes.label(subject) for subject in volumes.subjects}  # shuffled ones stratify their own folds
    division = divide(args, labels, cohort.sheet)
    chosen = folds_to_run(args, len(division.folds))
    config = {
        "kind": "finetune",
        "label_type": args.label_type,
        "k_fold": args.k_fold,
        "repeats": division.repeats,
        "model": {"name": args.model, "fields": asdict(build_classifier(args).config)},
        "data": {**volumes.describe(), "labels": str(cohort.sheet.resolve())},
        "finetune": str(args.finetune.resolve()) if args.finetune else None,
        "n_unknown": cohort.n_unknown,
        "device": device_name(world.device),
        "ranks": world.size,
        "args": arguments.plain(args),
    }
    if not args.eval:
        world.together(lambda: start_folds(args, division, config))
        if not args.overwrite:  # another job may have been the first
            division = divide(args, labels, cohort.sheet)

    def run_fold(fold: int, stop: StopRequest) -> None:
        if args.eval:
            states = finished_fold(args, fold, world)
        else:
            states = train_fold(args, fold, division.folds[fold], volumes, config, world, stop)
        folder = fold_folder(args, fold)
        if states.raw is not None:
            found, _ = test_fold(args, states.raw, fold, division, volumes, world)
            if world.is_main:
                write_predictions(folder / RAW_PREDICTIONS, found)
        found, decision = test_fold(args, states.tested, fold, division, volumes, world)
        if world.is_main:
            decision.save(folder)
            write_predictions(folder / PREDICTIONS, found)  # the last file: it says that a fold is done

    with StopRequest(args.max_minutes) as stop:
        for fold in chosen:
            remedy = "leave it to that job and choose others with --folds"
            with locked_by_main(world, fold_folder(args, fold), f"fold {fold}", remedy):
                if any(world.gather([args.resume is not None and not args.eval and is_finished(args, fold)])):
                    logger.info("fold %d is finished", fold)
                else:
                    run_fold(fold, stop)
    if world.is_main:
        rivals = Rivals(cohort.volumes, volumes, cohort.sheet, division, args.baselines)
        gather_results(args.output_dir, rivals, args.label_type, cohort.n_unknown, protocol_facts(args, division))


def main(argv: list[str] | None = None) -> None:
    launch(parse(argv), surviving(cross_validate))


if __name__ == "__main__":
    cli.run(main)
