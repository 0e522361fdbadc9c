"""The reconstruction loss, without ever holding all targets: they are as large as the volume itself."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_VALUES = 2**20  # values of one block: small enough for the cache, large enough that Python does not count

TargetOf = Callable[[slice, Tensor], Tensor]


def patch_squared_error(pred_BKP: Tensor, ids_BK: Tensor, target_of: TargetOf) -> Tensor:
    """Mean over all values of (pred - target)^2, (), in float32 at least.

    target_of(samples, ids (b, k)) gives the targets (b, k, P) of the patches `ids` of the samples in that slice. It is
    asked for a block of patches at a time, so that targets and float32 differences never leave the cache.
    """
    return _MeanSquare.apply(pred_BKP, ids_BK, target_of)  # pyright: ignore[reportReturnType]


def _blocks(ids_BK: Tensor, values: int) -> Iterator[tuple[slice, slice]]:
    """(samples, patches) of the blocks of a (B, K, values) tensor."""
    batch, kept = ids_BK.shape
    rows = max(1, BLOCK_VALUES // values)
    for sample in range(batch):
        for first in range(0, kept, rows):
            yield slice(sample, sample + 1), slice(first, first + rows)


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, ids: Tensor, target_of: TargetOf) -> Tensor:
        difference = torch.empty_like(pred)
        total = pred.new_zeros((), dtype=torch.promote_types(pred.dtype, torch.float32))
        for samples, patches in _blocks(ids, pred.shape[2]):
            error = pred[samples, patches].to(total.dtype) - target_of(samples, ids[samples, patches])
            difference[samples, patches] = error
            total += error.square_().sum()
        ctx.ids = ids
        ctx.save_for_backward(difference)
        return total / pred.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (difference,) = ctx.saved_tensors
        scale = grads[0] * (2 / difference.numel())  # by blocks again: a product in half precision would underflow
        dpred = torch.empty_like(difference)
        for block in _blocks(ctx.ids, difference.shape[2]):
            dpred[block] = difference[block].to(scale.dtype) * scale
        return dpred, None, None
