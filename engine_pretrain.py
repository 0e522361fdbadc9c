"""The loss of a pre-training batch, masked or autoregressive, and what it is compared with."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from util.distributed.world import World
from util.training.loader import MASKS, seed_of


@dataclass
class Reconstruction:
    """Loss of predicting the patches of a batch; an objective of util.training.trainer.Trainer.

    tokens: of a volume. mask_ratio: part of the patches that is removed; None for a model that takes no mask
    (autoregressive). The masks of a global batch are drawn alike on every rank and shared out, so that the number of
    ranks does not change which patches a subject loses.
    """

    tokens: int
    mask_ratio: float | None
    seed: int
    world: World

    def __call__(self, model: nn.Module, volumes_BCZYX: Tensor, labels_B: Tensor, epoch: int, step: int) -> Tensor:
        if self.mask_ratio is None:
            return model(volumes_BCZYX, return_pred=False).loss
        # seeded by step, so that an epoch can resume in its middle
        masks = torch.Generator().manual_seed(seed_of(self.seed, epoch, step, MASKS))
        rank, size = self.world.rank, self.world.size
        noise_BL = torch.rand(len(volumes_BCZYX) * size, self.tokens, generator=masks)[rank::size]
        return model(volumes_BCZYX, self.mask_ratio, noise_BL.to(volumes_BCZYX.device), return_pred=False).loss


@torch.no_grad()
def patch_mean_loss(predictor: nn.Module, loader: DataLoader, device: torch.device, batches: int = 8) -> float:
    """The loss of predicting each patch by its own mean, on a few batches: what a useful model must beat."""
    losses = []
    for volume, _ in itertools.islice(loader, batches):
        targets_BLP = predictor.targets(predictor.patchify(volume.to(device)))  # pyright: ignore[reportCallIssue]
        losses.append((targets_BLP - targets_BLP.mean(-1, keepdim=True)).square().mean())
    return float(torch.stack(losses).mean())
