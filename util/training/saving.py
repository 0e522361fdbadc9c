"""When a training saves, which checkpoints it keeps, and what it does where saving fails."""

import time
from dataclasses import dataclass
from pathlib import Path

from util.options.groups import OnSaveError
from util.run_folder import is_within_epoch
from util.runs import checkpoints

SPARE = 2  # checkpoints within an epoch are kept among the newest two only: one to use, one to fall back to


@dataclass(frozen=True)
class SaveOptions:
    """every: epochs, or minutes such as "10min". keep_last: so many of the newest checkpoints stay; None keeps those of
    finished epochs. on_error: what happens where a checkpoint cannot be written."""

    every: str = "20"
    keep_last: int | None = None
    on_error: OnSaveError = "stop"

    @property
    def epochs(self) -> int | None:
        return None if self.every.endswith("min") else int(self.every)

    @property
    def minutes(self) -> float | None:
        return float(self.every.removesuffix("min")) if self.every.endswith("min") else None

    def ends_epoch(self, epoch: int) -> bool:
        """Whether the end of this epoch is a time to save."""
        return self.epochs is not None and (epoch + 1) % self.epochs == 0


class SaveClock:
    """Says when the minutes between two checkpoints are over; restart it at every save."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.restart()

    def restart(self) -> None:
        self.started = time.monotonic()

    def is_due(self) -> bool:
        return self.minutes is not None and time.monotonic() - self.started > self.minutes * 60


def prune(newest: Path, keep_last: int | None) -> None:
    """Delete checkpoints up to `newest`, which is known to be readable, that are no longer needed."""
    found = checkpoints(newest.parent)
    found = found[: found.index(newest) + 1]  # later ones stay where a training went back to an older one
    old = found[: -(keep_last or SPARE)]
    for path in old if keep_last is not None else [path for path in old if is_within_epoch(path)]:
        path.unlink(missing_ok=True)
