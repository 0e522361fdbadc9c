"""The loop over epochs: records, checkpoints at their times, polite stops."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch

from util.distributed.consensus import Consensus
from util.process.stopping import Stopped, StopRequest
from util.runs import STOPPED_FILE, write_json
from util.training.bad_steps import BadSteps
from util.training.epoch_sums import Tally
from util.training.record import Record
from util.training.saving import SaveClock
from util.training.state import Training

logger = logging.getLogger(__name__)
MAX_BAD_STEPS = 10
SAVE, STOP = 1, 2  # wishes; the larger one includes the smaller


class Inside(NamedTuple):
    """What util.training.epoch.train_epoch needs of the training around it. tally: where the epoch begins.
    after_update: called with the tally after every update; it may save, or raise Stopped. bad_steps: lives on from
    epoch to epoch."""

    tally: Tally
    after_update: Callable[[Tally], None]
    bad_steps: BadSteps

    @classmethod
    def alone(cls, device: torch.device) -> "Inside":
        return cls(Tally.empty(device), lambda tally: None, BadSteps(MAX_BAD_STEPS))


def fit(
    training: Training,
    run_epoch: Callable[[int, Inside], dict[str, float]],
    *,
    epochs: int,
    record: Record,
    stop: StopRequest,
    max_bad_steps: int = MAX_BAD_STEPS,
    after_epoch: Callable[[int], None] | None = None,
    is_over: Callable[[int], bool] = lambda epoch: False,
) -> None:
    """Run the epochs that are left, record each, save when it is time and at the end: after the last epoch, or the one
    after which `is_over`, which must say the same on every rank.

    Raises Stopped, after saving, once `stop` has a reason. Every rank must call it, and all leave it alike.
    """
    world, saving = training.world, training.saving
    agree, clock, bad_steps = Consensus(world), SaveClock(saving.minutes), BadSteps(max_bad_steps)
    if world.is_main:
        (training.folder / STOPPED_FILE).unlink(missing_ok=True)

    def after_update(tally: Tally) -> None:
        wish = STOP if stop.reason else SAVE if world.is_main and clock.is_due() else 0
        if agreed := agree(wish):
            tally.skipped += bad_steps.look()
            training.tally = tally
            training.save()
            clock.restart()
        if agreed == STOP:
            leave()

    def leave() -> None:
        """Say in a file and by Stopped where the training stands and how it goes on."""
        epoch, step = training.next_epoch, training.tally.step if training.tally else 0
        reason = next(filter(None, world.gather([stop.reason])), "a signal")
        place = {"reason": reason, "epoch": epoch, "step": step}
        world.together(lambda: write_json(training.folder / STOPPED_FILE, place))
        raise Stopped(f"stopped by {reason} at epoch {epoch}, step {step}; continue with --resume auto")

    if training.next_epoch > 0 and training.tally is None and is_over(training.next_epoch - 1):
        return
    if training.next_epoch < epochs and any(world.gather([stop.reason])):
        leave()
    while training.next_epoch < epochs:
        epoch = training.next_epoch
        start = training.tally or Tally.empty(world.device)
        record.epoch(epoch, run_epoch(epoch, Inside(start, after_update, bad_steps)))
        if after_epoch is not None and world.is_main:
            after_epoch(epoch)
        training.next_epoch, training.tally = epoch + 1, None
        asked = max(world.gather([STOP if stop.reason else SAVE if clock.is_due() else 0]))
        is_last = training.next_epoch == epochs or is_over(epoch)
        if asked or is_last or saving.ends_epoch(epoch):
            training.save()
            clock.restart()
        if is_last:
            return
        if asked == STOP:
            leave()
