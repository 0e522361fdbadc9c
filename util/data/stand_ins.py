"""Stand-ins: the subjects that replace volumes which cannot be used in training (--on_bad_volume skip)."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch

logger = logging.getLogger(__name__)
OnBadVolume = Literal["stop", "skip"]


class StandIns:
    """The record of which item stood in for which, shared by data-loading processes and the training process."""

    def __init__(self, count: int) -> None:
        self._for_item = torch.full((count,), -1, dtype=torch.int64).share_memory_()

    def add(self, item: int, other: int) -> bool:
        """Record that `other` stands in for `item`. True if it was not recorded yet."""
        is_new = int(self._for_item[item]) != other
        self._for_item[item] = other
        return is_new

    def items(self) -> list[tuple[int, int]]:
        """(item, its stand-in), in order of items."""
        replaced = (self._for_item >= 0).nonzero().flatten().tolist()
        return [(item, int(self._for_item[item])) for item in replaced]


def candidates(item: int, labels: Sequence[int]) -> Iterator[int]:
    """The other items in the order in which they may stand in for `item`: those of its class first, each starting from
    the next item, so that the choice depends on the list of subjects alone."""
    others = [(item + step) % len(labels) for step in range(1, len(labels))]
    yield from sorted(others, key=lambda other: labels[other] != labels[item])


def report_stand_ins(stand_ins: Iterable[tuple[str, str]]) -> None:
    """Log the pairs (subject, its stand-in), gathered from all ranks."""
    if pairs := sorted(set(stand_ins)):
        listed = ", ".join(f"{subject} (by {other})" for subject, other in pairs)
        logger.warning(
            "%d of the training volumes could not be used and others stood in for them: %s; prepare them again",
            len(pairs),
            listed,
        )
