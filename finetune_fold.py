"""One fold of a cross-validation: trained, taken from its checkpoints, and scored on the subjects it never saw."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from timm.loss import SoftTargetCrossEntropy
from torch import nn

from engine_finetune import finetune_epoch, predict
from models import VolumeClassifier, create_model
from ops import resample_affine_fn
from util.checkpoint.loading import load_pretrained, load_weights, read_checkpoint
from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.data.stand_ins import report_stand_ins
from util.distributed.world import World
from util.evaluation.predictions import Prediction
from util.options.finetune import FinetuneOptions
from util.process.stopping import StopRequest
from util.protocol.best_epoch import BestEpoch, selected_weights
from util.protocol.decision import Decision, fit_decision, scaled
from util.protocol.division import Division
from util.protocol.folds import Fold
from util.protocol.tta import FlipAveraged
from util.runs import checkpoints, last_checkpoint
from util.statistics.metrics import classification_metrics
from util.training.fit import Inside, fit
from util.training.loader import seed_all, train_loader
from util.training.mixup import VolumeMixup
from util.training.optim import PrecisionName, Schedule, Stepper, build_optimizer, scaled_lr
from util.training.record import Record
from util.training.saving import SaveOptions
from util.training.state import Training, average_of

logger = logging.getLogger(__name__)


def build_classifier(options: FinetuneOptions) -> VolumeClassifier:
    name, fields = options.model.model, options.model.model_fields()
    if options.training.freeze_trunk:
        fields["drop_path_rate"] = 0.0  # noise to a head, and nothing else
    model = create_model(name, num_classes=options.model.nb_classes, **fields)
    if not isinstance(model, VolumeClassifier):
        raise ValueError(
            f"--model {name} is an autoencoder; fine-tuning needs a classifier such as vim_3d_small_patch16"
        )
    return model


def loss_and_mixup(
    options: FinetuneOptions, labels: list[int], device: torch.device
) -> tuple[Callable, VolumeMixup | None]:
    """labels: of the training part, for --class_weights."""
    if options.training.mixup == options.training.cutmix == 0:
        weights = None
        if options.training.class_weights == "balanced":  # mean 1 over subjects, as scikit-learn's "balanced"
            counts = torch.bincount(torch.tensor(labels), minlength=options.model.nb_classes).clamp_min(1)
            weights = len(labels) / (options.model.nb_classes * counts.float().to(device))
        return nn.CrossEntropyLoss(weights, label_smoothing=options.training.smoothing), None
    if options.training.class_weights != "none":
        raise ValueError("--mixup and --cutmix mix labels, which --class_weights cannot weigh: use one of them")
    if options.training.batch_size % 2:
        raise ValueError(f"--mixup and --cutmix mix pairs: --batch_size {options.training.batch_size} must be even")
    mixup = VolumeMixup(
        options.training.mixup,
        options.training.cutmix,
        label_smoothing=options.training.smoothing,
        num_classes=options.model.nb_classes,
    )
    return SoftTargetCrossEntropy(), mixup


def fold_folder(options: FinetuneOptions, fold: int) -> Path:
    return options.run.output_dir / f"fold_{fold}"


class States(NamedTuple):
    """Of a trained fold: the model that --select says and, where --ema kept an average, what it averages at the end."""

    tested: VolumeClassifier
    raw: VolumeClassifier | None


def train_fold(
    options: FinetuneOptions,
    fold: int,
    subjects: Fold,
    volumes: PreparedVolumes,
    config: dict[str, Any],
    world: World,
    stop: StopRequest,
    precision: PrecisionName,
) -> States:
    """A fresh model, trained on the fold's training part; precision: see util/training/precision.py, not always what
    the options say."""
    folder = fold_folder(options, fold)
    if options.run.resume is None and checkpoints(folder):
        raise ValueError(f"fold {fold} in {folder} has checkpoints: continue it with --resume auto, or --overwrite all")
    train_part, test_part = volumes.subset(subjects["train"]), volumes.subset(subjects["test"])
    val_part = volumes.subset(subjects["val"]) if subjects.get("val") else None
    training_volumes, to_input = training_input(
        train_part, options.data.augment, resample_affine_fn, augment=not options.data.no_augment
    )
    loader = train_loader(
        training_volumes,
        batch_size=options.training.batch_size,
        world=world,
        seed=options.run.seed,
        num_workers=options.data.num_workers,
        pin_memory=options.data.pin_mem,
    )
    seed_all(options.run.seed, fold)  # the same weights on every rank
    model = build_classifier(options)
    if options.model.finetune is not None:
        load_pretrained(model, options.model.finetune)
    if options.training.freeze_trunk:
        model.requires_grad_(False).get_classifier().requires_grad_(True)
    model.to(world.device)
    lr = scaled_lr(
        options.training.lr, options.training.blr, options.training.batch_size, options.training.accum_iter, world.size
    )
    optimizer = build_optimizer(
        model,
        lr=lr,
        weight_decay=options.training.weight_decay,
        betas=(0.9, 0.999),
        layer_decay=options.training.layer_decay,
    )
    stepper = Stepper(optimizer, world.device, precision, options.training.clip_grad)
    shape = "cosine" if options.training.use_scheduler else "constant"
    schedule = Schedule(lr, options.training.min_lr, options.training.warmup_epochs, options.training.epochs, shape)
    criterion, mixup = loss_and_mixup(options, labels_of(train_part).tolist(), world.device)
    average, saving = (
        average_of(model, options.training.ema),
        SaveOptions(options.run.save_freq, options.run.keep_last, options.run.on_save_error),
    )
    training = Training(model, stepper, folder, {**config, "fold": fold}, world, average, saving)
    training.resume(options.run.resume)
    first_epoch = training.next_epoch
    best = BestEpoch(
        folder, training.config, patience=options.protocol.patience, is_main=world.is_main, first_epoch=first_epoch
    )
    log_dir = (options.run.log_dir or options.run.output_dir) / f"fold_{fold}"
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
            seed=options.run.seed,
            inside=inside,
            accum_iter=options.training.accum_iter,
            ema=training.ema,
            record=record,
        )
        if (epoch + 1) % options.run.eval_freq == 0 or epoch + 1 == options.training.epochs:
            if val_part is not None:
                _, labels, found = scores(options, training.best_known, val_part, world, precision)
                scalars |= best.look(epoch, training.best_known, labels, found)
            watched = {"test": training.best_known} | ({} if training.ema is None else {"test_raw": training.model})
            for title, state in watched.items():  # to be watched only: nothing is chosen by it
                _, labels, found = scores(options, state, test_part, world, precision)
                metrics = classification_metrics(labels, found)
                scalars |= {f"{title}_{name}": metrics[name] for name in ("auc", "accuracy")}
        return scalars

    fit(
        training,
        run_epoch,
        epochs=options.training.epochs,
        record=record,
        stop=stop,
        max_bad_steps=options.training.max_bad_steps,
        is_over=best.is_over,
    )
    record.close()
    if options.protocol.select == "best_val":
        load_weights(training.best_known, best.path)
    report_stand_ins(world.gather(training_volumes.stand_ins()))
    return States(training.best_known, None if training.ema is None else training.model)


def finished_fold(options: FinetuneOptions, fold: int, world: World) -> States:
    """What the checkpoints of a trained fold hold."""
    folder, model = fold_folder(options, fold), build_classifier(options)
    load_weights(model, selected_weights(folder, options.protocol.select))
    content, raw = read_checkpoint(last_checkpoint(folder)), None
    if "raw_model" in content:
        raw = build_classifier(options).to(world.device)
        raw.load_state_dict(content["raw_model"])
    return States(model.to(world.device), raw)


class Scored(NamedTuple):
    """Subjects in the order of their volumes, without those whose volumes could not be used; probabilities of class
    1."""

    subjects: list[str]
    labels: np.ndarray
    probabilities: np.ndarray


def scores(
    options: FinetuneOptions, model: nn.Module, volumes: PreparedVolumes, world: World, precision: PrecisionName
) -> Scored:
    seen = FlipAveraged(model) if options.protocol.tta == "flip" else model
    found = predict(seen, volumes, world=world, batch_size=options.training.batch_size, precision=precision)
    subjects = [subject for subject in volumes.subjects if subject in found]
    labels, probabilities = ([of(subject) for subject in subjects] for of in (volumes.label, found.__getitem__))
    return Scored(subjects, np.array(labels), np.array(probabilities))


def labels_of(volumes: PreparedVolumes) -> np.ndarray:
    return np.array([volumes.label(subject) for subject in volumes.subjects])


def test_fold(
    options: FinetuneOptions,
    model: nn.Module,
    fold: int,
    division: Division,
    volumes: PreparedVolumes,
    world: World,
    precision: PrecisionName,
) -> tuple[list[Prediction], Decision]:
    """Held-out predictions of a fold and how they came about; temperature and threshold, if asked for, come from its
    validation part."""
    decision, subjects = Decision(), division.folds[fold]
    if options.protocol.calibrate == "temperature" or options.protocol.threshold == "val":
        _, labels, found = scores(options, model, volumes.subset(subjects["val"]), world, precision)
        decision = fit_decision(
            labels,
            found,
            fit_temperature=options.protocol.calibrate == "temperature",
            fit_threshold=options.protocol.threshold == "val",
        )
        logger.info("fold %d: temperature %.3f, threshold %.3f", fold, decision.temperature, decision.threshold)
    tested = scores(options, model, volumes.subset(subjects["test"]), world, precision)
    probabilities = scaled(tested.probabilities, decision.temperature)
    predictions = [
        Prediction(
            subject, fold, volumes.label(subject), float(probability), fold // division.k_fold, decision.threshold,
            division.patients.get(subject, ""),
        )
        for subject, probability in zip(tested.subjects, probabilities, strict=True)
    ]  # fmt: skip
    return predictions, replace(decision, select=options.protocol.select, tta=options.protocol.tta)
