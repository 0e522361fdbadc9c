"""Fine-tune a classifier with k-fold cross-validation and evaluate it on the held-out subjects.

python main_cr_finetune.py --model vim_3d_small_patch16 --finetune runs/pretrain/checkpoint-999.pth --label_type IDH
python main_cr_finetune.py ... --folds 0,3      only these folds; results are gathered from all folds that exist
python main_cr_finetune.py ... --eval           score the finished folds again
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from engine_finetune import finetune_epoch, predict
from models import VolumeClassifier, create_model
from util import arguments, cli
from util.checkpoint import load_pretrained, load_weights
from util.data.cohort import Cohort, load_cohort
from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.data.folder import LABEL_SHEET
from util.distributed import World
from util.folds import Fold, load_folds, make_folds, save_folds
from util.launch import launch
from util.loader import seed_all, train_loader
from util.metrics import classification_metrics
from util.optim import Schedule, Stepper, build_optimizer, scaled_lr
from util.record import Record
from util.results import Prediction, format_table, read_predictions, summarise, write_predictions, write_results
from util.runs import checkpoints, device_name, last_checkpoint, start_run
from util.training import Training, average_of, fit

logger = logging.getLogger(__name__)
FOLDS_FILE = "folds.json"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Fine-tune and evaluate a 3D classifier by k-fold cross-validation.")
    arguments.add_model_options(parser, "vim_3d_small_patch16")
    parser.add_argument("--finetune", type=Path, help="pre-trained checkpoint, ours or a published one; default: none")
    parser.add_argument("--nb_classes", type=int, default=2, help="classes of the task; both tasks have 2")
    arguments.add_data_options(parser)
    parser.add_argument("--label_type", choices=("IDH", "1p19q"), default="IDH", help="column of the label sheet")
    parser.add_argument("--labels", type=Path, help=f"label sheet; default {LABEL_SHEET} in the data folder")
    parser.add_argument("--k_fold", type=int, default=5)
    parser.add_argument("--folds", help="run only these, e.g. 0,3; default all")
    arguments.add_training_options(parser, epochs=100, blr=5e-4, warmup_epochs=5, weight_decay=0.05)
    parser.add_argument(
        "--use_scheduler", action="store_true", help="warm-up and cosine; otherwise the rate stays at --lr"
    )
    parser.add_argument(
        "--layer_decay", type=float, default=1.0, help="factor on the learning rate per layer below the head"
    )
    parser.add_argument("--smoothing", type=float, default=0.0, help="label smoothing")
    parser.add_argument("--mixup", type=float, default=0.0, help="mixup alpha, 0 for none")
    arguments.add_run_options(parser, "runs/finetune")
    parser.add_argument(
        "--eval_freq", type=arguments.positive, default=1, help="epochs between looks at the held-out curve"
    )
    parser.add_argument("--eval", action="store_true", help="train nothing; score the folds that have checkpoints")
    return parser.parse_args(argv)


def build_classifier(args: argparse.Namespace) -> VolumeClassifier:
    model = create_model(args.model, num_classes=args.nb_classes, **arguments.model_fields(args))
    if not isinstance(model, VolumeClassifier):
        raise ValueError(
            f"--model {args.model} is an autoencoder; fine-tuning needs a classifier such as vim_3d_small_patch16"
        )
    return model


def selected_folds(option: str | None, k_fold: int) -> list[int]:
    """ "0,3" -> [0, 3]; None -> all."""
    if option is None:
        return list(range(k_fold))
    try:
        folds = sorted({int(part) for part in option.split(",")})
    except ValueError:
        raise ValueError(f"--folds {option}: write fold numbers separated by commas, e.g. 0,3") from None
    if not all(0 <= fold < k_fold for fold in folds):
        raise ValueError(f"--folds {option}: with --k_fold {k_fold} folds are 0 to {k_fold - 1}")
    return folds


def loss_and_mixup(args: argparse.Namespace) -> tuple[Callable, Mixup | None]:
    if args.mixup == 0:
        return nn.CrossEntropyLoss(label_smoothing=args.smoothing), None
    if args.batch_size % 2:
        raise ValueError(f"--mixup mixes pairs: --batch_size {args.batch_size} must be even")
    mixup = Mixup(mixup_alpha=args.mixup, label_smoothing=args.smoothing, num_classes=args.nb_classes)
    return SoftTargetCrossEntropy(), mixup


def train_fold(
    args: argparse.Namespace, fold: int, subjects: Fold, volumes: PreparedVolumes, config: dict[str, Any], world: World
) -> VolumeClassifier:
    """A fresh model, trained on the fold's training part; its state after the last epoch is returned."""
    folder = args.output_dir / f"fold_{fold}"
    train_part, test_part = volumes.subset(subjects["train"]), volumes.subset(subjects["test"])
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
    model.to(world.device)
    lr = scaled_lr(args.lr, args.blr, args.batch_size, args.accum_iter, world.size)
    optimizer = build_optimizer(
        model, lr=lr, weight_decay=args.weight_decay, betas=(0.9, 0.999), layer_decay=args.layer_decay
    )
    stepper = Stepper(optimizer, world.device, args.precision, args.clip_grad)
    shape = "cosine" if args.use_scheduler else "constant"
    schedule = Schedule(lr, args.min_lr, args.warmup_epochs, args.epochs, shape)
    criterion, mixup = loss_and_mixup(args)
    training = Training(model, stepper, folder, {**config, "fold": fold}, average_of(model, args.ema))
    first_epoch = training.resume(args.resume)
    log_dir = (args.log_dir or args.output_dir) / f"fold_{fold}"
    record = Record(folder, log_dir, is_main=world.is_main, first_epoch=first_epoch)
    logger.info("fold %d: %d subjects to train on, %d held out", fold, len(train_part), len(test_part))
    parallel = world.wrap(model)

    def run_epoch(epoch: int) -> dict[str, float]:
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
            accum_iter=args.accum_iter,
            ema=training.ema,
            record=record,
        )
        if (epoch + 1) % args.eval_freq == 0 or epoch + 1 == args.epochs:
            scored = predict(
                training.best_known, test_part, world=world, batch_size=args.batch_size, precision=args.precision
            )
            labels = [volumes.labels[subject] for subject in scored]  # pyright: ignore[reportOptionalSubscript]
            metrics = classification_metrics(labels, list(scored.values()))
            scalars |= {f"test_{name}": metrics[name] for name in ("auc", "accuracy")}
        return scalars

    fit(
        training,
        run_epoch,
        first_epoch=first_epoch,
        epochs=args.epochs,
        save_freq=args.save_freq,
        world=world,
        record=record,
    )
    record.close()
    return training.best_known


def finished_fold(args: argparse.Namespace, fold: int, world: World) -> VolumeClassifier:
    """The model of a fold's last checkpoint."""
    model = build_classifier(args)
    load_weights(model, last_checkpoint(args.output_dir / f"fold_{fold}"))
    return model.to(world.device)


def open_cohort(args: argparse.Namespace) -> Cohort:
    root = arguments.data_root(args, "TEST_BASE_PATH")
    cohort = load_cohort(root, args.label_type, sheet=args.labels, normalize=arguments.normalization(args))
    arguments.check_size(cohort.volumes.size, arguments.image_size(args), root)
    return cohort


def load_or_make_folds(args: argparse.Namespace, labels: dict[str, int]) -> list[Fold]:
    """The folds that the run folder keeps, or new ones."""
    path = args.output_dir / FOLDS_FILE
    kept = path.exists() and not args.overwrite
    folds = load_folds(path, labels, args.label_type) if kept else make_folds(labels, args.k_fold, args.seed)
    if len(folds) != args.k_fold:
        raise ValueError(
            f"{path} holds {len(folds)} folds, --k_fold says {args.k_fold}: take that or another --output_dir"
        )
    return folds


def folds_to_run(args: argparse.Namespace) -> list[int]:
    """What --folds says; with --eval and without --folds, those that have checkpoints."""
    folds = selected_folds(args.folds, args.k_fold)
    if not args.eval or args.folds is not None:
        return folds
    trained = [fold for fold in folds if checkpoints(args.output_dir / f"fold_{fold}")]
    if not trained:
        raise ValueError(f"--eval: no fold of {args.output_dir} has a checkpoint yet")
    return trained


def gather_results(folder: Path, cohort: Cohort, label_type: str, k_fold: int) -> None:
    """Tables from the predictions of all folds that exist, whichever job made them."""
    files = sorted(folder.glob("fold_*/predictions.csv"))
    predictions = [prediction for file in files for prediction in read_predictions(file)]
    summary = summarise(predictions, label_type=label_type, n_unknown=cohort.n_unknown, k_fold=k_fold)
    write_results(folder, predictions, summary)
    logger.info("%s", format_table(summary))
    logger.info("results: %s", folder / "results.json")


def cross_validate(args: argparse.Namespace, world: World) -> None:
    if args.resume not in (None, "auto"):
        raise ValueError(f"--resume {args.resume}: every fold has its own checkpoints; use --resume auto")
    if args.nb_classes != 2:
        raise ValueError(f"--nb_classes {args.nb_classes}: {args.label_type} has 2 classes")
    cohort = open_cohort(args)
    folds, chosen = load_or_make_folds(args, cohort.labels), folds_to_run(args)
    config = {
        "kind": "finetune",
        "label_type": args.label_type,
        "k_fold": args.k_fold,
        "model": {"name": args.model, "fields": asdict(build_classifier(args).config)},
        "data": {**cohort.volumes.describe(), "labels": str(cohort.sheet.resolve())},
        "finetune": str(args.finetune.resolve()) if args.finetune else None,
        "n_unknown": cohort.n_unknown,
        "device": device_name(world.device),
        "ranks": world.size,
        "args": arguments.plain(args),
    }
    if world.is_main and not args.eval:
        continues = args.resume is not None or args.folds is not None  # other folds may already be here
        start_run(args.output_dir, config, resume=continues, overwrite=args.overwrite)
        save_folds(args.output_dir / FOLDS_FILE, folds, label_type=args.label_type, seed=args.seed)
    world.barrier()

    for fold in chosen:
        if args.eval:
            model = finished_fold(args, fold, world)
        else:
            model = train_fold(args, fold, folds[fold], cohort.volumes, config, world)
        test_part = cohort.volumes.subset(folds[fold]["test"])
        scored = predict(model, test_part, world=world, batch_size=args.batch_size, precision=args.precision)
        if world.is_main:
            found = [Prediction(subject, fold, cohort.labels[subject], p) for subject, p in scored.items()]
            write_predictions(args.output_dir / f"fold_{fold}" / "predictions.csv", found)
    if world.is_main:
        gather_results(args.output_dir, cohort, args.label_type, args.k_fold)


def main(argv: list[str] | None = None) -> None:
    launch(parse(argv), cross_validate)


if __name__ == "__main__":
    cli.run(main)
