"""The state of a training, how it is saved and restored, and the loop over epochs."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from timm.utils.model_ema import ModelEmaV3
from torch import nn

from util.checkpoint import load_weights, save_checkpoint
from util.distributed import World
from util.optim import Stepper
from util.record import Record
from util.runs import checkpoints

logger = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass
class Training(Generic[ModelT]):
    """Everything that changes while training. config: what rebuilds the model, stored in every checkpoint."""

    model: ModelT
    stepper: Stepper
    folder: Path
    config: dict[str, Any]
    ema: ModelEmaV3 | None = None

    @property
    def best_known(self) -> ModelT:
        """The model to evaluate: the averaged weights where there are any."""
        return self.model if self.ema is None else cast(ModelT, self.ema.module)

    def save(self, epoch: int) -> None:
        """checkpoint-`epoch`.pth: "model" holds the weights to use (averaged ones where there are any)."""
        content = {
            "model": self.best_known.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "epoch": epoch,
            "config": self.config,
        }
        if self.ema is not None:
            content["raw_model"] = self.model.state_dict()
        save_checkpoint(self.folder / f"checkpoint-{epoch}.pth", content)

    def restore(self, path: Path) -> int:
        """Continue from a checkpoint of this training; the epoch to run next is returned."""
        content = load_weights(self.best_known, path)
        if "optimizer" not in content or "epoch" not in content:
            raise ValueError(f"checkpoint {path} holds weights only and cannot be resumed; use it with --finetune")
        if (self.ema is not None) != ("raw_model" in content):
            raise ValueError(
                f"checkpoint {path} was trained {'without' if self.ema else 'with'} --ema: resume it likewise"
            )
        if self.ema is not None:
            self.model.load_state_dict(content["raw_model"])
        self.stepper.optimizer.load_state_dict(content["optimizer"])
        self.stepper.scaler.load_state_dict(content["scaler"])
        logger.info("resumed %s, next epoch %d", path, content["epoch"] + 1)
        return content["epoch"] + 1

    def resume(self, option: str | None) -> int:
        """What --resume asks for: None starts at epoch 0, "auto" takes the newest checkpoint if there is one."""
        if option is None:
            return 0
        if option != "auto":
            return self.restore(Path(option))
        found = checkpoints(self.folder)
        return self.restore(found[-1]) if found else 0


def average_of(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """The exponential average that --ema asks for; it follows closely at first (timm's warm-up)."""
    if decay is None:
        return None
    if not 0 < decay < 1:
        raise ValueError(f"--ema {decay} must lie between 0 and 1, e.g. 0.999")
    return ModelEmaV3(model, decay=decay, use_warmup=True)


def fit(
    training: Training,
    run_epoch: Callable[[int], dict[str, float]],
    *,
    first_epoch: int,
    epochs: int,
    save_freq: int,
    world: World,
    record: Record,
    after_epoch: Callable[[int], None] | None = None,
    is_over: Callable[[int], bool] = lambda epoch: False,
) -> None:
    """Run the epochs, record each, save every save_freq-th and the last one: the one after which `is_over`, if any."""
    if first_epoch > 0 and is_over(first_epoch - 1):
        return
    for epoch in range(first_epoch, epochs):
        record.epoch(epoch, run_epoch(epoch))
        if after_epoch is not None and world.is_main:
            after_epoch(epoch)
        is_last = epoch + 1 == epochs or is_over(epoch)
        if world.is_main and ((epoch + 1) % save_freq == 0 or is_last):
            training.save(epoch)
        world.barrier()
        if is_last:
            return
