"""Fine-tuning of one fold of a cross-validation: its model, the loss of a batch, its training and its checkpoints."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from models import VolumeClassifier, create_model
from util.checkpoint.loading import load_pretrained, load_weights, read_checkpoint
from util.evaluation.fold_predictions import FoldPredictor
from util.options import of_run
from util.options.finetune import FinetuneOptions, FinetuneTrainingOptions
from util.process.stopping import StopRequest
from util.protocol.best_epoch import BestEpoch, selected_weights
from util.run_folder import fold_folder
from util.runs import checkpoints, last_checkpoint
from util.statistics.metrics import classification_metrics
from util.training.loader import seed_all
from util.training.mixup import VolumeMixup
from util.training.trainer import make_trainer

logger = logging.getLogger(__name__)


def build_classifier(options: FinetuneOptions) -> VolumeClassifier:
    name, fields = options.model.model, options.model.model_fields()
    if options.training.freeze_trunk:
        fields["drop_path_rate"] = 0.0  # the head alone would train on its noise
    model = create_model(name, num_classes=options.model.nb_classes, **fields)
    if not isinstance(model, VolumeClassifier):
        raise ValueError(
            f"--model {name} is an autoencoder; fine-tuning needs a classifier such as vim_3d_small_patch16"
        )
    return model


@dataclass
class Classification:
    """Loss of classifying a batch; an objective of util.training.trainer.Trainer."""

    criterion: Callable[[Tensor, Tensor], Tensor]
    mixup: VolumeMixup | None = None

    def __call__(self, model: nn.Module, volumes_BCZYX: Tensor, labels_B: Tensor, epoch: int, step: int) -> Tensor:
        if self.mixup is not None:
            volumes_BCZYX, labels_B = self.mixup(volumes_BCZYX, labels_B)
        return self.criterion(model(volumes_BCZYX), labels_B)


def classification(
    options: FinetuneTrainingOptions, classes: int, labels: list[int], device: torch.device
) -> Classification:
    """labels: of the training part, for --class_weights."""
    if options.mixup == options.cutmix == 0:
        weights = None
        if options.class_weights == "balanced":  # mean 1 over subjects, as scikit-learn's "balanced"
            counts = torch.bincount(torch.tensor(labels), minlength=classes).clamp_min(1)
            weights = len(labels) / (classes * counts.float().to(device))
        return Classification(nn.CrossEntropyLoss(weights, label_smoothing=options.smoothing))
    if options.class_weights != "none":
        raise ValueError("--mixup and --cutmix mix labels, which --class_weights cannot weigh: use one of them")
    if options.batch_size % 2:
        raise ValueError(f"--mixup and --cutmix mix pairs: --batch_size {options.batch_size} must be even")
    mixup = VolumeMixup(options.mixup, options.cutmix, label_smoothing=options.smoothing, num_classes=classes)
    return Classification(SoftTargetCrossEntropy(), mixup)


class FoldModels(NamedTuple):
    """Models of a trained fold: of the epoch that --select names and, where --ema kept an average, the raw weights of
    the last epoch beside it."""

    tested: VolumeClassifier
    raw: VolumeClassifier | None


def train_fold(
    options: FinetuneOptions, fold: int, predictor: FoldPredictor, config: dict[str, Any], stop: StopRequest
) -> FoldModels:
    """Train a fresh model on the training part of a fold. config: what rebuilds the model."""
    training, run, protocol, world = options.training, options.run, options.protocol, predictor.world
    folder, subjects = fold_folder(run.output_dir, fold), predictor.division.folds[fold]
    if run.resume is None and checkpoints(folder):
        raise ValueError(f"fold {fold} in {folder} has checkpoints: continue it with --resume auto, or --overwrite all")
    volumes = predictor.volumes.subset(subjects["train"])
    seed_all(run.seed, fold)  # the same weights on every rank
    model = build_classifier(options)
    if options.model.finetune is not None:
        load_pretrained(model, options.model.finetune, data=config["data"])
    if training.freeze_trunk:
        model.requires_grad_(False).get_classifier().requires_grad_(True)
    labels = [volumes.label(subject) for subject in volumes.subjects]
    trainer = make_trainer(
        model.to(world.device),
        classification(training, options.model.nb_classes, labels, world.device),
        volumes,
        options,
        world,
        folder=folder,
        config={**config, "fold": fold},
        precision=predictor.precision,
        betas=(0.9, 0.999),
        layer_decay=training.layer_decay,
        schedule="cosine" if training.use_scheduler else "constant",
    )
    world.on_main_rank(lambda: of_run.start_fold(options, folder, {**config, "fold": fold}))
    trainer.resume(run.resume)
    state = trainer.state
    best = BestEpoch(
        folder, state.config, patience=protocol.patience, is_main=world.is_main, first_epoch=state.next_epoch
    )
    logger.info("fold %d: %d subjects to train on, %d held out", fold, len(volumes), len(subjects["test"]))

    def after_epoch(epoch: int) -> dict[str, float]:
        scalars: dict[str, float] = {}
        if (epoch + 1) % run.eval_freq and epoch + 1 != training.epochs:
            return scalars
        if subjects.get("val"):
            _, labels_S, probabilities_S = predictor.probabilities(state.model_to_use, subjects["val"])
            scalars |= best.update(epoch, state.model_to_use, labels_S, probabilities_S)
        watched = {"test": state.model_to_use} | ({} if state.ema is None else {"test_raw": state.model})
        for title, watched_model in watched.items():  # for the curves only: nothing is chosen by them
            _, labels_S, probabilities_S = predictor.probabilities(watched_model, subjects["test"])
            metrics = classification_metrics(labels_S, probabilities_S)
            scalars |= {f"{title}_{name}": metrics[name] for name in ("auc", "accuracy")}
        return scalars

    trainer.fit(stop, after_epoch=after_epoch, is_over=best.is_over)
    if protocol.select == "best_val":
        load_weights(state.model_to_use, best.path)
    return FoldModels(state.model_to_use, None if state.ema is None else state.model)


def load_fold(options: FinetuneOptions, fold: int, device: torch.device) -> FoldModels:
    """The models that the checkpoints of a trained fold hold."""
    folder, model = fold_folder(options.run.output_dir, fold), build_classifier(options)
    load_weights(model, selected_weights(folder, options.protocol.select))
    content, raw = read_checkpoint(last_checkpoint(folder)), None
    if "raw_model" in content:
        raw = build_classifier(options).to(device)
        raw.load_state_dict(content["raw_model"])
    return FoldModels(model.to(device), raw)
