"""The state of a training: what changes while training, how it is saved and restored."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from timm.utils.model_ema import ModelEmaV3
from torch import nn

from util.checkpoint.loading import load_weights, read_checkpoint, save_checkpoint
from util.distributed.world import World
from util.files.atomic import remove_leftovers
from util.run_folder import checkpoint_path
from util.runs import checkpoints
from util.training.epoch_sums import EpochSums
from util.training.optim import Stepper
from util.training.saving import SaveOptions, prune

logger = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass
class TrainingState(Generic[ModelT]):
    """Everything that changes while training. config: what rebuilds the model, stored in every checkpoint.

    next_epoch, sums: where it stands; sums are not None within an epoch, and say how far it has come.
    """

    model: ModelT
    stepper: Stepper
    folder: Path
    config: dict[str, Any]
    world: World
    ema: ModelEmaV3 | None = None
    saving: SaveOptions = field(default_factory=SaveOptions)
    next_epoch: int = 0
    sums: EpochSums | None = None

    @property
    def model_to_use(self) -> ModelT:
        """The model to evaluate: the averaged weights where there are any."""
        return self.model if self.ema is None else cast(ModelT, self.ema.module)

    def save(self) -> None:
        """Write a checkpoint of where the training stands. Every rank must call it; the main one writes.

        "model" holds the weights to use (averaged ones where there are any), "epoch" the last finished epoch, and
        "tallies" the sums of every rank within the next epoch. Raises OSError, on every rank, where it cannot be
        written and --on_save_error is stop. Earlier checkpoints stay until it is written and read back. Raises
        ValueError where a weight is not finite: such a state is worth no checkpoint, and none of a run that goes on.
        """
        epoch, sums = self.next_epoch - 1, self.sums
        content = {
            "model": self.model_to_use.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "epoch": epoch,
            "tallies": None if sums is None else self.world.gather([sums.plain()]),
            "config": self.config,
        }
        if self.ema is not None:
            content["raw_model"] = self.model.state_dict()
        self._check_finite()
        path = checkpoint_path(self.folder, *((epoch,) if sums is None else (epoch + 1, sums.step)))
        self.world.on_main_rank(lambda: self._write(path, content))

    def _check_finite(self) -> None:
        tensors = {**self.model.state_dict(), **({} if self.ema is None else self.ema.module.state_dict(prefix="ema."))}
        bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
        if bad:
            raise ValueError(
                f"{len(bad)} of {len(tensors)} tensors of the model are not finite, the first is {bad[0]}; they are "
                f"not saved, and {self._newest()}. Lower --lr, set --clip_grad or use --precision fp32, then continue "
                "with --resume auto --override"
            )

    def _newest(self) -> str:
        kept = checkpoints(self.folder)
        return f"the newest checkpoint is {kept[-1].name}" if kept else "there is no checkpoint yet"

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        try:
            save_checkpoint(path, content)
        except OSError as error:
            problem = f"{path} cannot be written ({error.strerror or error}); {self._newest()}"
            if self.saving.on_error == "stop":
                raise OSError(f"{problem}. Make room, then continue with --resume auto") from error
            logger.error("%s; the training goes on, as --on_save_error continue says", problem)
            return
        prune(path, self.saving.keep_last)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint of this training."""
        content = load_weights(self.model_to_use, path)
        if "optimizer" not in content or "epoch" not in content:
            raise ValueError(f"checkpoint {path} holds weights only and cannot be resumed; use it with --finetune")
        if (self.ema is not None) != ("raw_model" in content):
            raise ValueError(
                f"checkpoint {path} was trained {'without' if self.ema else 'with'} --ema: resume it likewise"
            )
        tallies = content.get("tallies")
        if tallies is not None and len(tallies) != self.world.size:
            raise ValueError(
                f"checkpoint {path} was saved within an epoch by {len(tallies)} rank(s), now there are "
                f"{self.world.size}: use as many, or --resume the checkpoint of a finished epoch"
            )
        if self.ema is not None:
            self.model.load_state_dict(content["raw_model"])
        self.stepper.optimizer.load_state_dict(content["optimizer"])
        if content["scaler"]:  # empty where no loss was scaled, as in float32 or, in place of fp16, on a CPU
            self.stepper.scaler.load_state_dict(content["scaler"])
        self.next_epoch = content["epoch"] + 1
        if tallies is not None:
            self.sums = EpochSums.from_plain(tallies[self.world.rank], self.world.device)
        logger.info("resumed %s, next: epoch %d, step %d", path, self.next_epoch, self.sums.step if self.sums else 0)

    def resume(self, option: str | None) -> None:
        """Restore what --resume names: nothing for None, for "auto" the newest readable checkpoint if there is one.

        The main rank chooses for all of them, so that a slow shared folder cannot make them differ.
        """
        if option not in (None, "auto"):
            self.restore(Path(option))
        elif option == "auto":
            chosen: list[Path | None] = [None]

            def choose() -> None:
                remove_leftovers(self.folder)
                chosen[0] = newest_readable(self.folder)

            self.world.on_main_rank(choose)
            path = self.world.gather(chosen)[0]
            if path is not None:
                self.restore(path)


def newest_readable(folder: Path) -> Path | None:
    """The newest checkpoint of a folder that can be read and has the right checksum; None if the folder has none.

    Damaged ones are logged and renamed to NAME.damaged. Raises ValueError where all of them are.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            read_checkpoint(path)
            return path
        except ValueError as error:
            logger.warning("%s; put aside as %s.damaged, trying the one before it", error, path.name)
            path.replace(path.with_name(path.name + ".damaged"))
    if found:
        raise ValueError(
            f"none of the {len(found)} checkpoints in {folder} can be read; they are kept as *.damaged. Start over "
            f"with --overwrite or in another --output_dir"
        )
    return None


def average_of(model: nn.Module, decay: float | None) -> ModelEmaV3 | None:
    """The exponential average that --ema asks for; it follows closely at first (timm's warm-up)."""
    if decay is None:
        return None
    if not 0 < decay < 1:
        raise ValueError(f"--ema {decay} must lie between 0 and 1, e.g. 0.999")
    return ModelEmaV3(model, decay=decay, use_warmup=True)
