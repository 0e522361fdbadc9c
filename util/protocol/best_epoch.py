"""Selection of the epoch with the best validation AUC, and early stopping."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from util.checkpoint.loading import read_checkpoint, save_checkpoint
from util.hub.exported_folder import is_exported
from util.options.protocol import Select
from util.run_folder import BEST
from util.runs import last_checkpoint
from util.statistics.metrics import classification_metrics


def selected_weights(fold: Path, select: Select) -> Path:
    """The weights file that a fold is tested with; with --ema it holds averaged weights. ValueError if it is
    missing."""
    if select == "last" or is_exported(fold):  # an exported fold has only the weights that `select` chose
        return last_checkpoint(fold)
    if not (fold / BEST).exists():
        raise ValueError(f"{fold} holds no {BEST}, which --select best_val writes: let the fold finish")
    return fold / BEST


class BestEpoch:
    """Writes FOLDER/best.pth: the weights of the epoch with the highest validation AUC, and the lowest Brier score
    among equals.

    A run that resumes at `first_epoch` reads its former best epoch. Only the main rank writes; all ranks get the same
    scores and thus decide in the same way. patience: epochs without an improvement after which `is_over`; None: never.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], *, patience: int | None, is_main: bool, first_epoch: int = 0
    ) -> None:
        self.path, self.config, self.patience, self.is_main = folder / BEST, config, patience, is_main
        self.epoch, self.score = -1, (-math.inf, -math.inf)
        if first_epoch > 0 and self.path.exists():
            former = read_checkpoint(self.path)
            self.epoch, self.score = former["epoch"], tuple(former["val_score"])

    def update(
        self, epoch: int, model: nn.Module, labels_S: np.ndarray, probabilities_S: np.ndarray
    ) -> dict[str, float]:
        """Score the validation part after `epoch` and write the weights if it is the best one. Returns AUC and Brier
        score for the record."""
        metrics = classification_metrics(labels_S, probabilities_S)
        score = (metrics["auc"], -metrics["brier"])
        if score > self.score:
            self.epoch, self.score = epoch, score
            if self.is_main:
                content = {"model": model.state_dict(), "epoch": epoch, "val_score": list(score), "config": self.config}
                save_checkpoint(self.path, content)
        return {"val_auc": metrics["auc"], "val_brier": metrics["brier"]}

    def is_over(self, epoch: int) -> bool:
        """Whether there was no better epoch for `patience` epochs."""
        return self.patience is not None and self.epoch >= 0 and epoch - self.epoch >= self.patience
