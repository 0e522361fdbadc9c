"""Memory for what an operator computes and nobody keeps: the same in every call.

All blocks of a step need the same few large temporaries. Asked for anew, each costs a page fault per 4 KiB; kept by
the C library, it leaves a hole that the next request of that size does not fit into, since alignment needs more.
"""

import math
import threading

import torch
from torch import Tensor

PLACES, STEP = 12, 320  # buffers begin 320 bytes further into a page each, or their rows would compete for cache lines


class _Buffer:
    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.memory = torch.empty(0, dtype=torch.uint8)
        self.latest = self.memory

    def view(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if self.latest.shape == shape and self.latest.dtype == dtype:
            return self.latest
        size = math.prod(shape) * dtype.itemsize
        with torch.inference_mode(False):  # or what a forward pass made there could not serve a backward pass
            if len(self.memory) < size:
                self.memory = self.latest = torch.empty(0, dtype=torch.uint8)  # given back before more is asked for
                self.memory = torch.empty(self.offset + size, dtype=torch.uint8)[self.offset :]
            self.latest = self.memory[:size].view(dtype).view(shape)
        return self.latest


class _Held(threading.local):
    def __init__(self) -> None:
        self.buffers: dict[str, _Buffer] = {}


_held = _Held()


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A CPU tensor of unspecified content. The next call with `name` in this thread gets the same memory: nothing that
    leaves the operator may be a view of it, and an operator inside another takes other names."""
    if name not in _held.buffers:
        _held.buffers[name] = _Buffer(len(_held.buffers) % PLACES * STEP)
    return _held.buffers[name].view(shape, dtype)


def release() -> None:
    """Give this thread's memory back to the allocator."""
    _held.buffers.clear()
