"""What the host side of all kernels shares: where they run, tiles, and how many segments keep a GPU busy."""

import contextlib
import functools
import os
from typing import Any, Literal

import torch
from torch import Tensor

# Triton's interpreter runs kernels on CPU tensors, without a GPU: tests set it.
DEVICE_TYPE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DEVICE: Literal["CPU", "CUDA"] = "CPU" if DEVICE_TYPE == "cpu" else "CUDA"  # that operators are registered for
PROGRAMS_PER_CORE = 8  # of one warp with 255 registers
MIN_STEPS = 16  # of a segment: shorter ones cost more in what is carried between them
BLOCK = 4  # steps that the backward pass takes at once; segments are whole blocks


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **options: Any) -> None:
    """Start a Triton kernel on the device of its first argument, which need not be the current one."""
    with torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext():
        kernel[grid](first, *others, **options)


@functools.cache
def cores(device: torch.device) -> int:
    """Multiprocessors of a GPU; a few where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def steps_per_segment(length: int, chains: int, device: torch.device) -> int:
    """Steps of each of the segments that `chains` independent sequences of channels are cut into."""
    segments = max(1, -(-cores(device) * PROGRAMS_PER_CORE // max(1, chains)))
    steps = max(MIN_STEPS, -(-length // segments))
    return -(-steps // BLOCK) * BLOCK


def next_power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def tile(width: int, most: int) -> int:
    """Channels of a program: a power of two, as many as lanes at least."""
    return min(most, max(32, next_power(width)))


def dense(x: Tensor) -> Tensor:
    """x with neighbouring numbers along its last axis."""
    return x if x.stride(-1) == 1 else x.contiguous()
