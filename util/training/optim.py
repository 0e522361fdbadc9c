"""Optimiser, learning-rate schedule and the backward step, for both trainings."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from util.options.groups import PrecisionName

ScheduleShape = Literal["cosine", "constant"]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def scaled_lr(lr: float | None, blr: float, batch_size: int, accum_iter: int, world_size: int) -> float:
    """`lr` if given, else blr * (subjects per update) / 256."""
    return lr if lr is not None else blr * batch_size * accum_iter * world_size / 256


def build_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float], layer_decay: float = 1.0
) -> torch.optim.AdamW:
    """AdamW over timm's parameter groups; `lr_scale` of a group is honoured by `Schedule.apply` on every step.

    Not decayed: what model.no_weight_decay() names and all one-dimensional parameters. layer_decay: factor on the
    learning rate per layer away from the output.
    """
    groups = param_groups_layer_decay(
        model,
        weight_decay=weight_decay,
        no_weight_decay_list=tuple(model.no_weight_decay()),  # pyright: ignore[reportCallIssue]  # our models have it
        layer_decay=layer_decay,
    )
    # Fused on CUDA: it can skip an update without the host waiting to read whether the gradient is finite.
    on_cuda = all(parameter.device.type == "cuda" for parameter in model.parameters())
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=on_cuda or None)


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the update, counted in fractions of an epoch.

    shape "cosine": linear warm-up over warmup_epochs, then half a cosine from lr to min_lr; "constant": lr throughout.
    """

    lr: float
    min_lr: float
    warmup_epochs: float
    epochs: float
    shape: ScheduleShape = "cosine"

    def __call__(self, epoch: float) -> float:
        if self.shape == "constant":
            return self.lr
        if epoch < self.warmup_epochs:
            return self.lr * epoch / self.warmup_epochs
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def apply(self, optimizer: torch.optim.Optimizer, epoch: float) -> float:
        """Set every group's learning rate, times its lr_scale, for this moment; the unscaled rate is returned."""
        lr = self(epoch)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        return lr


class Stepper:
    """Autocast, loss scaling, gradient clipping and the optimiser step in one object.

    precision: fp32, bf16 or fp16 (only fp16 scales the loss). clip_grad: largest gradient norm, None for no limit.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, device: torch.device, precision: PrecisionName, clip_grad: float | None
    ) -> None:
        if precision not in get_args(PrecisionName):
            raise ValueError(f"--precision {precision} is not one of {', '.join(get_args(PrecisionName))}")
        self.optimizer, self.device, self.clip_grad = optimizer, device, clip_grad
        self.precision: PrecisionName = precision
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")  # pyright: ignore

    def autocast(self) -> AbstractContextManager:
        return autocast(self.device, self.precision)

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients. A loss that is not finite makes them NaN, even where its own gradient is finite.
        Every rank then sees NaN in the sum of the gradients, and `step` skips the update on all of them."""
        self.scaler.scale(loss).backward(torch.where(loss.detach().isfinite(), 1.0, math.nan).to(loss.dtype))

    def step(self) -> Tensor:
        """Unscale, clip, update, clear; the gradient's norm before clipping is returned, (). Where it is not finite the
        update is skipped: in fp16 by the scaler, with a fused optimiser on the device, otherwise by the host."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self.clip_grad if self.clip_grad else math.inf)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif all(group.get("fused") for group in self.optimizer.param_groups):
            self.optimizer.found_inf = (~norm.isfinite()).float()  # pyright: ignore  # as GradScaler sets it
            self.optimizer.step()
        elif norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def autocast(device: torch.device, precision: PrecisionName) -> AbstractContextManager:
    """The autocast region of a precision; for fp32 one that does nothing."""
    return torch.autocast(device.type, dtype=DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)
