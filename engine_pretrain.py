"""One epoch of pre-training, masked or autoregressive."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from util.distributed.world import World
from util.training.epoch import train_epoch
from util.training.loader import MASKS, seed_of


def pretrain_epoch(
    model: nn.Module,
    loader: DataLoader,
    *,
    world: World,
    epoch: int,
    seed: int,
    tokens: int,
    mask_ratio: float | None,
    to_input: Callable[[Tensor], Tensor] = lambda batch: batch,
    **loop,
) -> dict[str, float]:
    """Predict patches of every batch once; see util.training.epoch.train_epoch for the rest and the result.

    mask_ratio: part of the patches that is removed; None for a model that takes no mask (autoregressive).
    to_input: turns a batch of the loader, on the device, into the model's input.
    The masks of a global batch are drawn alike on every rank and shared out, so that the number of ranks does not
    change which patches a subject loses.
    """
    masks = torch.Generator()

    def reconstruction_loss(model: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        volume = to_input(batch[0].to(world.device, non_blocking=True))
        if mask_ratio is None:
            return model(volume, return_pred=False).loss
        masks.manual_seed(seed_of(seed, epoch, step, MASKS))  # by step, so that an epoch can resume in its middle
        noise = torch.rand(len(volume) * world.size, tokens, generator=masks)[world.rank :: world.size]
        return model(volume, mask_ratio, noise.to(world.device), return_pred=False).loss

    return train_epoch(model, loader, reconstruction_loss, world=world, epoch=epoch, seed=seed, **loop)


@torch.no_grad()
def patch_mean_loss(predictor: nn.Module, loader: DataLoader, device: torch.device, batches: int = 8) -> float:
    """The loss of predicting each patch by its own mean, on a few batches: what a useful model must beat."""
    losses = []
    for volume, _ in itertools.islice(loader, batches):
        targets_BLP = predictor.targets(predictor.patchify(volume.to(device)))  # pyright: ignore[reportCallIssue]
        losses.append((targets_BLP - targets_BLP.mean(-1, keepdim=True)).square().mean())
    return float(torch.stack(losses).mean())
