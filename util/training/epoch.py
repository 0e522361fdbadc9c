"""One epoch of training, whatever the loss: accumulation, schedule, optimiser steps, logging."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from util.distributed.world import World
from util.training.fit import Inside
from util.training.loader import STEP, names_of_steps, seed_all, start_epoch
from util.training.optim import Schedule, Stepper
from util.training.record import Progress, Record, peak_memory_mb

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
    inside: Inside | None = None,
    accum_iter: int = 1,
    ema: ModelEmaV3 | None = None,
    record: Record | None = None,
) -> dict[str, float]:
    """Train for one epoch, or for what is left of it; the epoch's scalars are returned, train_loss averaged over ranks.

    inside: the training around it, see util/training/fit.py; None for an epoch on its own.
    loss_of_batch(model, batch, step) -> mean loss of the batch, (). `ema` follows the unwrapped model. The last group
    of steps may be smaller than accum_iter; its gradients are averaged over its own size. An update whose loss or
    gradient is not finite is left out on all ranks and counted. Raises ValueError where that happens too often in a
    row, or where the epoch began with batches of another size.
    """
    model.train()
    inside = inside or Inside.alone(world.device)
    steps, tally = len(loader), inside.tally
    if (tally.step % accum_iter and tally.step != steps) or tally.step > steps:
        raise ValueError(
            f"this epoch was left after step {tally.step}, which {steps} steps with --accum_iter {accum_iter} do not "
            f"pass: resume with the --batch_size and --accum_iter of before, or from the checkpoint of a finished epoch"
        )
    start_epoch(loader, epoch, tally.step)
    core = model.module if isinstance(model, DistributedDataParallel) else model
    inside.bad_steps.start_epoch(epoch, partial(names_of_steps, loader))
    is_host = world.device.type == "cpu"  # where a look costs nothing
    progress = Progress(f"epoch {epoch}", is_main=world.is_main)
    before, samples_before, started = tally.seconds, tally.samples, time.monotonic()
    for step, batch in enumerate(progress(loader, steps, tally.step), start=tally.step):
        seed_all(seed, epoch, step, world.rank, STEP)
        first_of_group = step - step % accum_iter
        group = min(accum_iter, steps - first_of_group)
        is_update = step + 1 == first_of_group + group
        if step == first_of_group:
            tally.lr = schedule.apply(stepper.optimizer, epoch + step / steps)
        waits = isinstance(model, DistributedDataParallel) and not is_update
        with model.no_sync() if waits else nullcontext():  # pyright: ignore[reportCallIssue]  # DDP has no_sync
            with stepper.autocast():
                loss = loss_of_batch(model, batch, step)
            stepper.backward(loss / group)
        tally.add(loss.detach())
        tally.samples += len(batch[0]) * world.size
        if is_update:
            tally.norm = stepper.step()
            inside.bad_steps.note(range(first_of_group, step + 1), tally.norm)
            if ema is not None:
                ema.update(core, step=epoch * math.ceil(steps / accum_iter) + step // accum_iter)
        is_look = step % LOG_INTERVAL == 0 or step == steps - 1
        if is_look or is_host:
            tally.skipped += inside.bad_steps.look()
        tally.seconds = before + time.monotonic() - started
        if is_look:
            value, rate = float(loss.detach()), (tally.samples - samples_before) / (tally.seconds - before)
            progress.show(
                loss=f"{value:.4f}",
                lr=f"{tally.lr:.2e}",
                samples_per_s=f"{rate:.2f}",
                peak_MB=f"{peak_memory_mb(world.device):.0f}",
            )
            if record is not None:
                scalars = {"loss": value, "lr": tally.lr, "grad_norm": float(tally.norm), "skipped": tally.skipped}
                record.step(int(1000 * (epoch + step / steps)), scalars)
        if is_update:
            inside.after_update(tally)
    return {
        "train_loss": float(world.mean(tally.mean_loss())),
        "lr": tally.lr,
        "grad_norm": float(tally.norm),
        "skipped_steps": tally.skipped,
        "samples_per_s": tally.samples / tally.seconds,
        "seconds": tally.seconds,
        "peak_memory_mb": peak_memory_mb(world.device),
    }
