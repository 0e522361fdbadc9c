"""The specification of patches as rows and of the squared error of predicted patches, in plain PyTorch.

Shape suffixes: B batch, C contrasts, Z Y X voxels, K chosen patches, P values per patch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ops.operators import ANY_DEVICE, differentiate, register

BLOCK_VALUES = 2**20  # values per block: few enough for the cache, so many that the time of Python does not matter


def check_ids(ids_BK: Tensor, volume_BCZYX: Tensor, patch_size: int) -> None:
    """Raise ValueError unless every id is the number of a patch. Ids without values, while a model is traced, pass.

    On a GPU a kernel checks them, and the error comes with the next synchronisation: a step must not wait for it.
    """
    tokens = volume_BCZYX.shape[2:].numel() // patch_size**3
    if ids_BK.is_cuda and not _is_traced(ids_BK):
        torch._assert_async(((ids_BK >= 0) & (ids_BK < tokens)).all(), f"ids_BK must be from 0 to {tokens - 1}")
    if ids_BK.device.type != "cpu" or not ids_BK.numel() or _is_traced(ids_BK):
        return
    smallest, largest = (int(x) for x in ids_BK.aminmax())
    if smallest < 0 or largest >= tokens:
        raise ValueError(
            f"ids_BK must be from 0 to {tokens - 1}, the patches of {patch_size} voxels of volume_BCZYX "
            f"{tuple(volume_BCZYX.shape)}: got {smallest} to {largest}"
        )


def _is_traced(x: Tensor) -> bool:
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or isinstance(x, FakeTensor)
    )


def gather_patches(
    volume_BCZYX: Tensor, ids_BK: Tensor | None, patch_size: int, contrasts_first: bool = False
) -> Tensor:
    """`ops.gather_patches_fn` in plain PyTorch."""
    if ids_BK is not None:
        check_ids(ids_BK, volume_BCZYX, patch_size)
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
    """`ops.patch_error_fn` in plain PyTorch, a block of patches at a time: all targets would fill a volume."""
    return torch.ops.mamba_mae.patch_error(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise)[0]


def _blocks(batch: int, kept: int, values: int) -> Iterator[tuple[slice, slice]]:
    """(samples, patches) of the blocks of a (batch, kept, values) tensor."""
    rows = max(1, BLOCK_VALUES // values)
    for sample in range(batch):
        for first in range(0, kept, rows):
            yield slice(sample, sample + 1), slice(first, first + rows)


def patch_error_plain(
    pred_BKP: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor, patch_size: int, normalise: bool
) -> Tensor:
    """`patch_error` of all patches at once, in operators that every exporter supports."""
    target = gather_patches(volume_BCZYX.detach(), ids_BK, patch_size)
    if normalise:
        mean, std = patch_moments(target)
        target = (target - mean) / std
    return (pred_BKP.to(torch.promote_types(pred_BKP.dtype, torch.float32)) - target).square().mean()


def _error(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """The mean square, (), and the differences, in the shape of pred."""
    difference = pred.new_empty(pred.shape)
    total = pred.new_zeros((), dtype=torch.promote_types(pred.dtype, torch.float32))
    for samples, patches in _blocks(*pred.shape):
        target = gather_patches(volume[samples], ids[samples, patches], patch_size)
        if normalise:
            mean, std = patch_moments(target)
            target = (target - mean) / std
        error = pred[samples, patches].to(total.dtype) - target
        difference[samples, patches] = error
        total += error.square_().sum()
    return total / pred.numel(), difference


def _error_backward(grad: Tensor, difference: Tensor) -> Tensor:
    scale = grad * (2 / max(1, difference.numel()))
    dpred = difference.new_empty(difference.shape)
    for block in _blocks(*difference.shape):  # in the precision of scale: a product in float16 would underflow
        dpred[block] = difference[block].to(scale.dtype) * scale
    return dpred


def _error_shapes(pred: Tensor, *unused: Any) -> tuple[Tensor, Tensor]:
    return pred.new_empty((), dtype=torch.promote_types(pred.dtype, torch.float32)), pred.new_empty(pred.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, difference = output
    ctx.save_for_backward(difference)
    ctx.mark_non_differentiable(difference)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, unused: None) -> tuple[Tensor | None, ...]:
    return torch.ops.mamba_mae.patch_error_backward(grad, *ctx.saved_tensors), None, None, None, None


register(
    "patch_error(Tensor pred, Tensor volume, Tensor ids, int patch_size, bool normalise) -> (Tensor, Tensor)",
    _error,
    _error_shapes,
    device=ANY_DEVICE,
)
register(
    "patch_error_backward(Tensor grad, Tensor difference) -> Tensor",
    _error_backward,
    lambda grad, difference: difference.new_empty(difference.shape),
    device=ANY_DEVICE,
)
differentiate("patch_error", _gradients, _save)
