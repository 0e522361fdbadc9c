"""Updates whose loss or gradient is not finite: counted, named, and the end of patience."""

import logging
from collections.abc import Callable

from torch import Tensor

logger = logging.getLogger(__name__)


class BadSteps:
    """Watches gradient norms without waiting for the device; every rank sees the same norms, so all act alike.

    limit: so many bad updates in a row are borne, one more raises ValueError; the optimiser has then left them out, so
    the weights, and every checkpoint, are from before.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.in_a_row, self.epoch = limit, 0, 0
        self.names: Callable[[range], list[str]] = lambda steps: []
        self.unseen: list[tuple[range, Tensor]] = []

    def start_epoch(self, epoch: int, names: Callable[[range], list[str]]) -> None:
        """names: the subjects in some steps of this epoch."""
        self.epoch, self.names = epoch, names

    def note(self, steps: range, norm: Tensor) -> None:
        """Remember the update that these steps of the epoch made, and the norm of its gradient, ()."""
        self.unseen.append((steps, norm))

    def look(self) -> int:
        """Judge what was noted since the last look, which waits for the device; the number of bad updates in it."""
        bad = 0
        for steps, norm in self.unseen:
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
                self.unseen.clear()
                raise ValueError(
                    f"the loss or its gradient was not finite in {self.in_a_row} updates in a row, up to epoch "
                    f"{self.epoch}, {which} (--max_bad_steps {self.limit}): lower --lr, set --clip_grad, use "
                    f"--precision fp32, or look at the subjects named above; all were skipped, so the checkpoints are "
                    f"from before"
                )
        self.unseen.clear()
        return bad
