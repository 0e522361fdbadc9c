"""Temporary memory of operators, used again in every call.

All blocks of a training step need the same few large temporaries. A new allocation costs a page fault per 4 KiB. The C
library cannot reuse freed ones either: alignment makes each request larger than the hole that the last one left.
"""

import math
import threading

import torch
from torch import Tensor

# Each buffer begins 320 bytes further into a page than the last, so that their rows do not compete for cache lines.
PLACES, STEP = 12, 320


class _Buffer:
    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.latest = self.memory  # the view returned last

    def view(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.latest.shape == shape and self.latest.dtype == dtype:
            return self.latest
        size = math.prod(shape) * dtype.itemsize
        with torch.inference_mode(False):  # autograd refuses tensors made in inference mode
            if len(self.memory) < size:
                self.memory = self.latest = torch.empty(0, dtype=torch.uint8)  # free the old memory first
                self.memory = torch.empty(self.offset + size, dtype=torch.uint8)[self.offset :]
            self.latest = self.memory[:size].view(dtype).view(shape)
        return self.latest


class _Held(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, _Buffer] = {}


_held = _Held()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A CPU tensor of unspecified content. The next call with `name` in this thread gets the same memory.

    So no result of an operator may be a view of it, and an operator inside another must use other names.
    """
    if name not in _held.buffers:
        _held.buffers[name] = _Buffer(len(_held.buffers) % PLACES * STEP)
    return _held.buffers[name].view(shape, dtype)


def release() -> None:
    """Free this thread's buffers."""
    _held.buffers.clear()
