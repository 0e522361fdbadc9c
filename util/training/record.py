"""The record of a training: metrics.jsonl, TensorBoard, a progress bar, a log line per epoch."""

import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from util.files.atomic import atomic_write
from util.run_folder import METRICS
from util.runs import read_metrics

logger = logging.getLogger(__name__)


class Record:
    """Writes one run's (or one fold's) epochs; on ranks other than the main one it writes nothing.

    folder: where metrics.jsonl goes. log_dir: where TensorBoard events go. first_epoch: lines of this and later epochs,
    left by a run that was cut off, are dropped, so that a resumed run has neither gaps nor repeats.
    """

    def __init__(self, folder: Path, log_dir: Path, *, is_main: bool, first_epoch: int = 0) -> None:
        self.path = folder / METRICS
        self.writer = SummaryWriter(str(log_dir)) if is_main else None
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            kept = [row for row in read_metrics(folder) if row["epoch"] < first_epoch]
            with atomic_write(self.path, "w") as file:
                file.writelines(json.dumps(row) + "\n" for row in kept)
            if lost := sorted(set(range(first_epoch)) - {row["epoch"] for row in kept}):
                logger.warning("%s lacks epochs %s, which ended before this start", self.path, lost)

    def epoch(self, epoch: int, values: dict[str, float]) -> None:
        """Record the scalars of an epoch, and log them in a line."""
        if self.writer is None:
            return
        values = {name: value for name, value in values.items() if math.isfinite(value)}  # JSON has no NaN
        row = {"epoch": epoch, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())  # before the checkpoint that says that this epoch is over
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()
        logger.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4g}" for name, value in values.items()))

    def step(self, epoch_1000x: int, values: dict[str, float]) -> None:
        """Scalars within an epoch; the x axis is epoch * 1000, so that batch sizes can be compared."""
        if self.writer is not None:
            for name, value in values.items():
                if math.isfinite(value):
                    self.writer.add_scalar(f"step/{name}", value, epoch_1000x)

    def picture(self, name: str, image_HWC: np.ndarray, epoch: int) -> None:
        if self.writer is not None:
            self.writer.add_image(name, image_HWC, epoch, dataformats="HWC")

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


class Progress:
    """Iterate over batches, with a bar in a terminal and a few plain lines per epoch elsewhere."""

    LINES = 4  # plain lines per epoch

    def __init__(self, title: str, *, is_main: bool) -> None:
        self.title, self.is_main = title, is_main
        self.fields: dict[str, str] = {}

    def __call__(self, batches: Iterable, total: int, done: int = 0) -> Iterator:
        """The batches; `done` of the `total` came before them."""
        terminal = sys.stderr.isatty()
        hidden = not (self.is_main and terminal)
        bar = tqdm(batches, total=total, initial=done, desc=self.title, disable=hidden, leave=False)
        started = time.monotonic()
        for number, batch in enumerate(bar, start=done + 1):
            yield batch
            bar.set_postfix(self.fields, refresh=False)
            if self.is_main and not terminal and number % max(total // self.LINES, 1) == 0 and number < total:
                left = (time.monotonic() - started) / (number - done) * (total - number)
                shown = " ".join(f"{name} {value}" for name, value in self.fields.items())
                logger.info("%s %d/%d %s ETA %.0f s", self.title, number, total, shown, left)

    def show(self, **fields: str) -> None:
        """Set the fields of the bar or of the next plain line."""
        self.fields = fields


def peak_memory_mb(device: torch.device) -> float:
    """The highest memory use so far, MiB: of the device for CUDA, of the process otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, KiB elsewhere
