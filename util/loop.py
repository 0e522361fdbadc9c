"""One epoch of training, whatever the loss: accumulation, schedule, optimiser steps, logging."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from util.distributed import World
from util.loader import start_epoch
from util.optim import Schedule, Stepper
from util.record import Progress, Record, peak_memory_mb

LOG_INTERVAL = 20  # steps between looks at the loss, which wait for the device


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    loss_of_batch: Callable[[nn.Module, Any, int], Tensor],
    stepper: Stepper,
    schedule: Schedule,
    *,
    world: World,
    epoch: int,
    seed: int,
    accum_iter: int = 1,
    ema: ModelEmaV3 | None = None,
    record: Record | None = None,
) -> dict[str, float]:
    """Train for one epoch; the epoch's scalars are returned, train_loss averaged over ranks.

    loss_of_batch(model, batch, step) -> mean loss of the batch, (). `ema` follows the unwrapped model. The last group
    of steps may be smaller than accum_iter; its gradients are averaged over its own size. Raises ValueError where the
    loss is not finite.
    """
    model.train()
    start_epoch(loader, seed, epoch, world.rank)
    core = model.module if isinstance(model, DistributedDataParallel) else model
    steps, total, lr, norm = len(loader), torch.zeros((), device=world.device), 0.0, torch.zeros(())
    progress = Progress(f"epoch {epoch}", is_main=world.is_main)
    started, samples = time.monotonic(), 0
    for step, batch in enumerate(progress(loader, steps)):
        first_of_group = step - step % accum_iter
        group = min(accum_iter, steps - first_of_group)
        is_update = step + 1 == first_of_group + group
        if step == first_of_group:
            lr = schedule.apply(stepper.optimizer, epoch + step / steps)
        waits = isinstance(model, DistributedDataParallel) and not is_update
        with model.no_sync() if waits else nullcontext():  # pyright: ignore[reportCallIssue]  # DDP has no_sync
            with stepper.autocast():
                loss = loss_of_batch(model, batch, step)
            stepper.backward(loss / group)
        if is_update:
            norm = stepper.step()
            if ema is not None:
                ema.update(core, step=epoch * math.ceil(steps / accum_iter) + step // accum_iter)
        total += loss.detach()
        samples += len(batch[0]) * world.size
        if step % LOG_INTERVAL == 0 or step == steps - 1:
            value, rate = _finite(loss, epoch, step), samples / (time.monotonic() - started)
            progress.show(
                loss=f"{value:.4f}",
                lr=f"{lr:.2e}",
                samples_per_s=f"{rate:.2f}",
                peak_MB=f"{peak_memory_mb(world.device):.0f}",
            )
            if record is not None:
                record.step(int(1000 * (epoch + step / steps)), {"loss": value, "lr": lr})
    seconds = time.monotonic() - started
    return {
        "train_loss": float(world.mean(total / steps)),
        "lr": lr,
        "grad_norm": float(norm),
        "samples_per_s": samples / seconds,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(world.device),
    }


def _finite(loss: Tensor, epoch: int, step: int) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ValueError(f"the loss is {value} at epoch {epoch}, step {step}: lower --lr, set --clip_grad, or use fp32")
    return value
