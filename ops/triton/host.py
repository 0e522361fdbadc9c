"""Shared by the host side of all kernels: launches, the device, tiles, and how many segments keep a GPU busy."""

import contextlib
import functools
import os
from typing import Any, Literal

import torch
from torch import Tensor

# Tests set TRITON_INTERPRET: Triton's interpreter runs kernels on CPU tensors, without a GPU.
DEVICE_TYPE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DEVICE: Literal["CPU", "CUDA"] = "CPU" if DEVICE_TYPE == "cpu" else "CUDA"  # for which operators are registered
PROGRAMS_PER_CORE = 8  # programs of one warp with 255 registers
MIN_STEPS = 16  # of a segment; in shorter ones, carrying states between segments costs too much
BLOCK = 4  # steps that the backward pass takes at once; a segment is a multiple of it


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **options: Any) -> None:
    """Start a Triton kernel on the device of its first argument, which need not be the current device."""
    with torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext():
        kernel[grid](first, *others, **options)


@functools.cache
def cores(device: torch.device) -> int:
    """Multiprocessors of a GPU; a fixed number where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def steps_per_segment(length: int, chains: int, device: torch.device) -> int:
    """Steps per segment, so that the segments of `chains` independent groups of channels keep the GPU busy."""
    segments = max(1, -(-cores(device) * PROGRAMS_PER_CORE // max(1, chains)))
    steps = max(MIN_STEPS, -(-length // segments))
    return -(-steps // BLOCK) * BLOCK


def next_power(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << max(0, count - 1).bit_length()


def tile(width: int, most: int) -> int:
    """Channels of a program: a power of two, at least the lanes of a warp."""
    return min(most, max(32, next_power(width)))


def dense(x: Tensor) -> Tensor:
    """x, copied if its last axis is not contiguous."""
    return x if x.stride(-1) == 1 else x.contiguous()
