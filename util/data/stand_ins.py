"""Volumes that cannot be used while training: one that stands in for each, and what is said of them at the end."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch

logger = logging.getLogger(__name__)
OnBadVolume = Literal["stop", "skip"]


class StandIns:
    """Which items others stood in for, known to the processes that load data and to the one that trains alike."""

    def __init__(self, count: int) -> None:
        self._for_item = torch.full((count,), -1, dtype=torch.int64).share_memory_()

    def note(self, item: int, other: int) -> bool:
        """Whether it is news that `other` stands in for `item`."""
        is_news = int(self._for_item[item]) != other
        self._for_item[item] = other
        return is_news

    def items(self) -> list[tuple[int, int]]:
        """(item, the one that stood in for it), in order."""
        found = (self._for_item >= 0).nonzero().flatten().tolist()
        return [(item, int(self._for_item[item])) for item in found]


def candidates(item: int, labels: Sequence[int]) -> Iterator[int]:
    """The other items in the order in which they may stand in for `item`: those of its class first, each time from
    the next one on, so that the choice depends on nothing but the list of subjects."""
    others = [(item + step) % len(labels) for step in range(1, len(labels))]
    yield from sorted(others, key=lambda other: labels[other] != labels[item])


def report_stand_ins(found: Iterable[tuple[str, str]]) -> None:
    """Log (subject, the one that stood in for it), gathered from all ranks."""
    if pairs := sorted(set(found)):
        listed = ", ".join(f"{subject} (by {other})" for subject, other in pairs)
        logger.warning(
            "%d of the training volumes could not be used and others stood in for them: %s; prepare them again",
            len(pairs), listed,
        )  # fmt: skip
