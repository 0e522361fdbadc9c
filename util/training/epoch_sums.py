"""Sums over the steps of an epoch, and how far it has come: what a checkpoint within an epoch has to keep."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class EpochSums:
    """step: batches done. loss_sum and finite, () each: sum of this rank's finite losses and their number. norm, ():
    gradient norm of the last update. skipped: updates left out because loss or gradient was not finite. seconds,
    samples: of the whole epoch, also where the training was interrupted in it."""

    loss_sum: Tensor
    finite: Tensor
    norm: Tensor
    step: int = 0
    skipped: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    samples: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> "EpochSums":
        loss_sum, finite, norm = (torch.zeros((), device=device) for _ in range(3))
        return cls(loss_sum, finite, norm)

    def add(self, loss: Tensor) -> None:
        """Count one step's loss, () and detached; one that is not finite is left out. Does not wait for the device."""
        is_finite = loss.isfinite()
        self.loss_sum += torch.where(is_finite, loss, 0.0)
        self.finite += is_finite
        self.step += 1

    def mean_loss(self) -> Tensor:
        """(), NaN where no loss was finite."""
        return self.loss_sum / torch.where(self.finite > 0, self.finite, math.nan)

    def plain(self) -> dict[str, Any]:
        """As numbers; waits for the device."""
        return {name: value.item() if isinstance(value, Tensor) else value for name, value in vars(self).items()}

    @classmethod
    def from_plain(cls, numbers: dict[str, Any], device: torch.device) -> "EpochSums":
        tensors = {name: torch.tensor(numbers[name], device=device) for name in ("loss_sum", "finite", "norm")}
        return cls(**{**numbers, **tensors})
