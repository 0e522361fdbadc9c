"""Training of a model: the loop over epochs and steps, with what is saved and recorded on the way."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from util.data.dataset import PreparedVolumes
from util.data.device_input import training_input
from util.data.stand_ins import report_stand_ins
from util.distributed.consensus import Consensus
from util.distributed.world import World
from util.options.groups import PrecisionName, TrainingOptions, TrainingProgram
from util.process.stopping import Stopped, StopRequest
from util.run_folder import STOPPED
from util.runs import write_json
from util.training.bad_steps import BadSteps
from util.training.epoch_sums import EpochSums
from util.training.loader import STEP, names_of_steps, seed_all, start_epoch, train_loader
from util.training.optim import Schedule, ScheduleShape, Stepper, build_optimizer, scaled_lr
from util.training.record import Progress, Record, peak_memory_mb
from util.training.saving import SaveClock, SaveOptions
from util.training.state import ModelT, TrainingState, average_of

logger = logging.getLogger(__name__)
Objective = Callable[[nn.Module, Tensor, Tensor, int, int], Tensor]
"""(model, volumes (B, C, Z, Y, X), labels (B,), epoch, step) -> mean loss of the batch, ()."""
LOG_INTERVAL = 20  # steps between readings of the loss, which wait for the device
SAVE, STOP = 1, 2  # requests of a rank; the largest one of all ranks counts, and stopping includes saving


@dataclass
class Trainer(Generic[ModelT]):
    """state: what changes while training, and is saved. objective: the loss of a batch. to_input: turns the volumes of
    the loader, on the device, into the model's input. stand_ins: subjects whose volumes could not be used, each with
    the one that was used instead. log_dir: folder of the TensorBoard events.

    Every rank makes one, calls `resume` once and then `fit`.
    """

    state: TrainingState[ModelT]
    objective: Objective
    loader: DataLoader
    schedule: Schedule
    options: TrainingOptions
    seed: int
    log_dir: Path
    to_input: Callable[[Tensor], Tensor] = lambda volumes: volumes
    stand_ins: Callable[[], list[tuple[str, str]]] = list
    record: Record | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.world = self.state.world
        self.model: nn.Module = self.state.model  # or what wraps it on several ranks
        self.stop = StopRequest()
        self.agree, self.clock = Consensus(self.world), SaveClock(self.state.saving.minutes)
        self.bad_steps = BadSteps(self.options.max_bad_steps)

    def resume(self, option: str | None) -> None:
        """Continue from what --resume names, and open the record of the training."""
        self.state.resume(option)
        is_main, first_epoch = self.world.is_main, self.state.next_epoch
        self.record = Record(self.state.folder, self.log_dir, is_main=is_main, first_epoch=first_epoch)

    def fit(
        self,
        stop: StopRequest,
        *,
        after_epoch: Callable[[int], dict[str, float]] = lambda epoch: {},
        is_over: Callable[[int], bool] = lambda epoch: False,
    ) -> None:
        """Train for the epochs that are left, record each, and save at the set times and at the end.

        after_epoch: called on every rank after an epoch; its scalars are recorded with those of the epoch. is_over:
        whether the training ends after an epoch; it must say the same on every rank. Raises Stopped, after saving,
        once `stop` has a reason. Every rank must call it, and all leave it alike.
        """
        assert self.record is not None, "call resume first"
        state, world, epochs = self.state, self.world, self.options.epochs
        self.stop, self.model = stop, world.wrap(state.model)
        self.clock.restart()
        if world.is_main:
            (state.folder / STOPPED).unlink(missing_ok=True)
        is_done = state.next_epoch >= epochs
        if state.next_epoch > 0 and state.sums is None:
            is_done = is_done or is_over(state.next_epoch - 1)
        if not is_done and any(world.gather([stop.reason])):
            self._leave()
        while not is_done:
            epoch = state.next_epoch
            scalars = self.train_epoch(epoch)
            self.record.epoch(epoch, {**scalars, **after_epoch(epoch)})
            state.next_epoch, state.sums = epoch + 1, None
            request = max(world.gather([STOP if stop.reason else SAVE if self.clock.is_due() else 0]))
            is_done = state.next_epoch == epochs or is_over(epoch)
            if request or is_done or state.saving.ends_epoch(epoch):
                self._save()
            if request == STOP and not is_done:
                self._leave()
        self.record.close()
        report_stand_ins(world.gather(self.stand_ins()))

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train for one epoch, or for what is left of it; its scalars are returned, train_loss averaged over ranks.

        The last group of steps may be smaller than accum_iter; its gradients are averaged over its own size. An update
        whose loss or gradient is not finite is left out on all ranks and counted. Raises ValueError where that happens
        too often in a row, or where the epoch began with batches of another size.
        """
        state, stepper, world, accum_iter = self.state, self.state.stepper, self.world, self.options.accum_iter
        sums, steps = state.sums or EpochSums.empty(world.device), len(self.loader)
        if (sums.step % accum_iter and sums.step != steps) or sums.step > steps:
            raise ValueError(
                f"this epoch was left after step {sums.step}, which {steps} steps with --accum_iter {accum_iter} do "
                f"not pass: resume with the --batch_size and --accum_iter of before, or from the checkpoint of a "
                f"finished epoch"
            )
        self.model.train()
        start_epoch(self.loader, epoch, sums.step)
        self.bad_steps.start_epoch(epoch, partial(names_of_steps, self.loader))
        on_cpu = world.device.type == "cpu"  # where reading a number does not wait
        progress = Progress(f"epoch {epoch}", is_main=world.is_main)
        seconds_before, samples_before, started = sums.seconds, sums.samples, time.monotonic()
        for step, (volumes, labels) in enumerate(progress(self.loader, steps, sums.step), start=sums.step):
            seed_all(self.seed, epoch, step, world.rank, STEP)
            first_of_group = step - step % accum_iter
            group_size = min(accum_iter, steps - first_of_group)
            is_update = step + 1 == first_of_group + group_size
            if step == first_of_group:
                sums.lr = self.schedule.apply(stepper.optimizer, epoch + step / steps)
            if isinstance(self.model, DistributedDataParallel):
                self.model.require_backward_grad_sync = is_update
            volumes, labels = (part.to(world.device, non_blocking=True) for part in (volumes, labels))
            with stepper.autocast():
                loss = self.objective(self.model, self.to_input(volumes), labels, epoch, step)
            stepper.backward(loss / group_size)
            sums.add(loss.detach())
            sums.samples += len(volumes) * world.size
            if is_update:
                sums.norm = stepper.step()
                self.bad_steps.note(range(first_of_group, step + 1), sums.norm)
                if state.ema is not None:
                    state.ema.update(state.model, step=epoch * math.ceil(steps / accum_iter) + step // accum_iter)
            is_logged = step % LOG_INTERVAL == 0 or step == steps - 1
            if is_logged or on_cpu:
                sums.skipped += self.bad_steps.check()
            sums.seconds = seconds_before + time.monotonic() - started
            if is_logged:
                rate = (sums.samples - samples_before) / (sums.seconds - seconds_before)
                self._log(progress, epoch + step / steps, float(loss.detach()), sums, rate)
            if is_update:
                self._save_or_stop(sums)
        return {
            "train_loss": float(world.mean(sums.mean_loss())),
            "lr": sums.lr,
            "grad_norm": float(sums.norm),
            "skipped_steps": sums.skipped,
            "samples_per_s": sums.samples / sums.seconds,
            "seconds": sums.seconds,
            "peak_memory_mb": peak_memory_mb(world.device),
        }

    def picture(self, name: str, image_HWC: np.ndarray, epoch: int) -> None:
        """Show a picture in TensorBoard."""
        if self.record is not None:
            self.record.picture(name, image_HWC, epoch)

    def _log(self, progress: Progress, place: float, loss: float, sums: EpochSums, samples_per_s: float) -> None:
        """Show a step in the progress bar and in TensorBoard. place: epochs, with the part of the present one."""
        progress.show(
            loss=f"{loss:.4f}",
            lr=f"{sums.lr:.2e}",
            samples_per_s=f"{samples_per_s:.2f}",
            peak_MB=f"{peak_memory_mb(self.world.device):.0f}",
        )
        if self.record is not None:
            scalars = {"loss": loss, "lr": sums.lr, "grad_norm": float(sums.norm), "skipped": sums.skipped}
            self.record.step(int(1000 * place), scalars)

    def _save_or_stop(self, sums: EpochSums) -> None:
        """After an update: save, or save and raise Stopped, where any rank asks for it."""
        request = STOP if self.stop.reason else SAVE if self.world.is_main and self.clock.is_due() else 0
        if agreed := self.agree(request):
            sums.skipped += self.bad_steps.check()
            self.state.sums = sums
            self._save()
        if agreed == STOP:
            self._leave()

    def _save(self) -> None:
        self.state.save()
        self.clock.restart()

    def _leave(self) -> None:
        """Write where the training stands and how it goes on to stopped.json, and raise Stopped."""
        epoch, step = self.state.next_epoch, self.state.sums.step if self.state.sums else 0
        reason = next(filter(None, self.world.gather([self.stop.reason])), "a signal")
        place = {"reason": reason, "epoch": epoch, "step": step}
        self.world.on_main_rank(lambda: write_json(self.state.folder / STOPPED, place))
        raise Stopped(f"stopped by {reason} at epoch {epoch}, step {step}; continue with --resume auto")


def make_trainer(
    model: ModelT,
    objective: Objective,
    volumes: PreparedVolumes,
    options: TrainingProgram,
    world: World,
    *,
    folder: Path,
    config: dict[str, Any],
    precision: PrecisionName,
    betas: tuple[float, float],
    layer_decay: float = 1.0,
    schedule: ScheduleShape = "cosine",
) -> Trainer[ModelT]:
    """A trainer as the options of a program describe it; nothing is written yet.

    volumes: the training part. folder: for checkpoints and metrics. config: what rebuilds the model, stored in every
    checkpoint. precision: see util/training/precision.py, not always that of the options.
    """
    training, data, run = options.training, options.data, options.run
    items, to_input = training_input(volumes, data.augment, augment=not data.no_augment)
    loader = train_loader(
        items,
        batch_size=training.batch_size,
        world=world,
        seed=run.seed,
        num_workers=data.num_workers,
        pin_memory=data.pin_mem,
    )
    lr = scaled_lr(training.lr, training.blr, training.batch_size, training.accum_iter, world.size)
    optimizer = build_optimizer(model, lr=lr, weight_decay=training.weight_decay, betas=betas, layer_decay=layer_decay)
    state = TrainingState(
        model,
        Stepper(optimizer, world.device, precision, training.clip_grad),
        folder,
        config,
        world,
        average_of(model, training.ema),
        SaveOptions(run.save_freq, run.keep_last, run.on_save_error),
    )
    return Trainer(
        state,
        objective,
        loader,
        Schedule(lr, training.min_lr, training.warmup_epochs, training.epochs, schedule),
        training,
        run.seed,
        log_dir=folder if run.log_dir is None else run.log_dir / folder.relative_to(run.output_dir),
        to_input=to_input,
        stand_ins=items.stand_ins,
    )
