"""Choosing an epoch on the validation part of a fold: the best weights so far, and when to give up."""

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
    """The file of the epoch that is tested; averaged weights where --ema kept some. ValueError where there is none."""
    if select == "last" or is_exported(fold):  # of which those weights were exported that select says
        return last_checkpoint(fold)
    if not (fold / BEST).exists():
        raise ValueError(f"{fold} holds no {BEST}, which --select best_val keeps: let the fold finish")
    return fold / BEST


class BestEpoch:
    """Keeps FOLDER/best.pth: weights of the epoch with the highest validation AUC, of equals the lowest Brier score.

    A run that resumes at `first_epoch` finds what it had: epochs seen again are not better than themselves. On ranks
    other than the main one nothing is written; all see the same scores and so decide alike. patience: epochs without a
    better one before `is_over`; None waits for ever.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], *, patience: int | None, is_main: bool, first_epoch: int = 0
    ) -> None:
        self.path, self.config, self.patience, self.is_main = folder / BEST, config, patience, is_main
        self.epoch, self.score = -1, (-math.inf, -math.inf)
        if first_epoch > 0 and self.path.exists():
            kept = read_checkpoint(self.path)
            self.epoch, self.score = kept["epoch"], tuple(kept["val_score"])

    def look(self, epoch: int, model: nn.Module, labels_S: np.ndarray, probabilities_S: np.ndarray) -> dict[str, float]:
        """Score the validation part after `epoch`; its AUC and Brier score are returned for the record."""
        found = classification_metrics(labels_S, probabilities_S)
        score = (found["auc"], -found["brier"])
        if score > self.score:
            self.epoch, self.score = epoch, score
            if self.is_main:
                content = {"model": model.state_dict(), "epoch": epoch, "val_score": list(score), "config": self.config}
                save_checkpoint(self.path, content)
        return {"val_auc": found["auc"], "val_brier": found["brier"]}

    def is_over(self, epoch: int) -> bool:
        """No better epoch for `patience` epochs; never before the first look."""
        return self.patience is not None and self.epoch >= 0 and epoch - self.epoch >= self.patience
