"""Updates whose loss or gradient is not finite: they are skipped, counted and logged; too many in a row end the run."""

import logging
from collections.abc import Callable

from torch import Tensor

logger = logging.getLogger(__name__)


class BadSteps:
    """Checks gradient norms without waiting for the device. Every rank sees the same norms, so all ranks act alike.

    limit: number of bad updates in a row that are accepted; one more raises ValueError. The optimiser has skipped them,
    so the weights, and every checkpoint, are from before.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.in_a_row, self.epoch = limit, 0, 0
        self.names: Callable[[range], list[str]] = lambda steps: []
        self.unchecked: list[tuple[range, Tensor]] = []

    def start_epoch(self, epoch: int, names: Callable[[range], list[str]]) -> None:
        """names: gives the subjects in some steps of this epoch."""
        self.epoch, self.names = epoch, names

    def note(self, steps: range, norm: Tensor) -> None:
        """Remember the update that these steps of the epoch made, and the norm of its gradient, ()."""
        self.unchecked.append((steps, norm))

    def check(self) -> int:
        """The number of bad updates since the last check. Reading the norms waits for the device."""
        bad = 0
        for steps, norm in self.unchecked:
            if norm.isfinite():
                self.in_a_row = 0
                continue
            bad, self.in_a_row = bad + 1, self.in_a_row + 1
            which = f"step {steps.start}" if len(steps) == 1 else f"steps {steps.start} to {steps.stop - 1}"
            logger.warning(
                "epoch %d, %s: loss or gradient is not finite; update skipped; subjects: %s",
                self.epoch,
                which,
                ", ".join(self.names(steps)),
            )
            if self.in_a_row > self.limit:
                self.unchecked.clear()
                raise ValueError(
                    f"the loss or its gradient was not finite in {self.in_a_row} updates in a row, up to epoch "
                    f"{self.epoch}, {which} (--max_bad_steps {self.limit}): lower --lr, set --clip_grad, use "
                    f"--precision fp32, or look at the subjects named above; all were skipped, so the checkpoints are "
                    f"from before"
                )
        self.unchecked.clear()
        return bad
