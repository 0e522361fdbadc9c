"""One epoch of fine-tuning, and prediction on held-out subjects."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from util.data.dataset import PreparedVolumes
from util.distributed.world import World
from util.training.epoch import train_epoch
from util.training.loader import eval_loader
from util.training.mixup import VolumeMixup
from util.training.optim import PrecisionName, autocast

logger = logging.getLogger(__name__)


def finetune_epoch(
    model: nn.Module,
    loader: DataLoader,
    *,
    world: World,
    criterion: Callable[[Tensor, Tensor], Tensor],
    mixup: VolumeMixup | None = None,
    to_input: Callable[[Tensor], Tensor] = lambda batch: batch,
    **loop,
) -> dict[str, float]:
    """Classify every batch once; see util.training.epoch.train_epoch for the rest and the result.

    to_input: turns a batch of the loader, on the device, into the model's input.
    """

    def classification_loss(model: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        volume, label = (part.to(world.device, non_blocking=True) for part in batch)
        volume = to_input(volume)
        if mixup is not None:
            volume, label = mixup(volume, label)
        return criterion(model(volume), label)

    return train_epoch(model, loader, classification_loss, world=world, **loop)


@torch.no_grad()
def predict(
    model: nn.Module,
    volumes: PreparedVolumes,
    *,
    world: World,
    batch_size: int,
    num_workers: int = 0,
    precision: PrecisionName = "fp32",
) -> dict[str, float]:
    """Probability of class 1 for every subject of `volumes`, on every rank; each subject is computed exactly once.
    Subjects whose volume cannot be used are left out where `volumes` skip them.

    The model is put in evaluation mode and left as it was found.
    """
    was_training = model.training
    model.eval()
    found: list[tuple[str, float]] = []
    if mine := volumes.subjects[world.rank :: world.size]:
        probabilities = []
        part = volumes.subset(mine)
        loader = eval_loader(part, batch_size=batch_size, num_workers=num_workers)
        for volume, _ in loader:
            with autocast(world.device, precision):
                logits = model(volume.to(world.device))
            probabilities += logits.float().softmax(-1)[:, 1].tolist()
        unusable = dict(part.stand_ins())  # another subject's probability is nobody's prediction
        if unusable:
            logger.warning("left out of the evaluation, their volumes cannot be used: %s", ", ".join(unusable))
        found = [pair for pair in zip(mine, probabilities, strict=True) if pair[0] not in unusable]
    model.train(was_training)
    return dict(sorted(world.gather(found)))
