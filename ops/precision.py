"""The precision in which scans and convolutions compute, whatever autocast asks for."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """The precision of states and sums: float64 for float64 inputs, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Switches autocast off on the device of x. Meta tensors know no autocast."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def below_autocast(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` without autocast: every product is computed in the precision of its operands."""

    @functools.wraps(kernel)
    def run(first: Tensor, *others: Any) -> Any:
        with without_autocast(first):
            return kernel(first, *others)

    return run
