"""Patches of volumes as rows, and the squared error of predicted patches. The specification, in plain PyTorch."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_VALUES = 2**20  # values of one block: small enough for the cache, large enough that Python does not count


def gather_patches(
    volume_BCZYX: Tensor, ids_BK: Tensor | None, patch_size: int, contrasts_first: bool = False
) -> Tensor:
    """`ops.gather_patches_fn` in plain PyTorch."""
    p, batch = patch_size, volume_BCZYX.shape[0]
    z, y, x = (side // p for side in volume_BCZYX.shape[2:])
    order = (0, 2, 4, 6, 1, 3, 5, 7) if contrasts_first else (0, 2, 4, 6, 3, 5, 7, 1)
    grid = volume_BCZYX.unflatten(4, (x, p)).unflatten(3, (y, p)).unflatten(2, (z, p)).permute(order)
    if ids_BK is None:
        return grid.flatten(4).flatten(1, 3)
    sample = torch.arange(batch, device=ids_BK.device)[:, None]
    return grid[sample, ids_BK // (y * x), ids_BK // x % y, ids_BK % x].flatten(2)


def patch_moments(patches_BKP: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, 1) mean and standard deviation of each patch (unbiased variance + 1e-6)."""
    return patches_BKP.mean(-1, keepdim=True), (patches_BKP.var(-1, keepdim=True) + 1e-6).sqrt()


def patch_error(pred_BKP: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor, patch_size: int, normalise: bool) -> Tensor:
    """`ops.patch_error_fn` in plain PyTorch, a block of patches at a time: the targets are as large as the volume."""
    return _MeanSquare.apply(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise)  # pyright: ignore[reportReturnType]


def _blocks(batch: int, kept: int, values: int) -> Iterator[tuple[slice, slice]]:
    """(samples, patches) of the blocks of a (batch, kept, values) tensor."""
    rows = max(1, BLOCK_VALUES // values)
    for sample in range(batch):
        for first in range(0, kept, rows):
            yield slice(sample, sample + 1), slice(first, first + rows)


class _MeanSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> Tensor:
        difference = torch.empty_like(pred)
        total = pred.new_zeros((), dtype=torch.promote_types(pred.dtype, torch.float32))
        for samples, patches in _blocks(*pred.shape):
            target = gather_patches(volume[samples], ids[samples, patches], patch_size)
            if normalise:
                mean, std = patch_moments(target)
                target = (target - mean) / std
            error = pred[samples, patches].to(total.dtype) - target
            difference[samples, patches] = error
            total += error.square_().sum()
        ctx.save_for_backward(difference)
        return total / pred.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (difference,) = ctx.saved_tensors
        scale = grads[0] * (2 / difference.numel())  # by blocks again: a product in float16 would underflow
        dpred = torch.empty_like(difference)
        for block in _blocks(*difference.shape):
            dpred[block] = difference[block].to(scale.dtype) * scale
        return dpred, None, None, None, None
