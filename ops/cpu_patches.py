"""torch.ops.mamba_mae.gather_patches and patch_error: ops/csrc/patches.cpp, and the gradient of the error."""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops import cpu, cpu_library
from ops.cpu_library import Patches, pointer
from ops.operators import differentiate, register


def takes(volume: Tensor, pred: Tensor | None = None) -> bool:
    """Whether the kernels read this volume: constant, float32, lines of neighbouring voxels."""
    readable = volume.dtype == torch.float32 and not volume.requires_grad and volume.stride(4) == 1
    return readable and cpu.unavailable(volume) is None and (pred is None or cpu.unavailable(pred) is None)


def gather_patches(volume: Tensor, ids: Tensor | None, patch_size: int, contrasts_first: bool) -> Tensor:
    """`ops.gather_patches_fn` for what `takes` accepts, in the autocast precision, which spares its reader a copy."""
    if ids is None:
        tokens = volume.shape[2:].numel() // patch_size**3
        ids = torch.arange(tokens).expand(volume.shape[0], tokens)
    return torch.ops.mamba_mae.gather_patches(volume, ids, patch_size, contrasts_first, cpu.wants_half())


def patch_error(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> Tensor:
    """`ops.patch_error_fn` for what `takes` accepts."""
    return torch.ops.mamba_mae.patch_error(pred, volume, ids, patch_size, normalise)[0]


def _arguments(volume: Tensor, ids: Tensor, patch_size: int, rows: Tensor, **more: Any) -> Patches:
    batch, contrasts, _, y, x = volume.shape
    return Patches(
        batch=batch, kept=ids.shape[1], contrasts=contrasts, patch=patch_size,
        grid_y=y // patch_size, grid_x=x // patch_size, threads=torch.get_num_threads(),
        batch_stride=volume.stride(0), contrast_stride=volume.stride(1), plane_stride=volume.stride(2),
        line_stride=volume.stride(3), bfloat16_rows=rows.dtype == torch.bfloat16, volume=pointer(volume),
        ids=pointer(ids), rows=pointer(rows), **more,
    )  # fmt: skip


def _gather(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, half: bool) -> Tensor:
    rows, ids = _gather_shapes(volume, ids, patch_size, contrasts_first, half), ids.contiguous()
    arguments = _arguments(volume, ids, patch_size, rows, contrasts_first=contrasts_first)
    cpu_library.library().patches_gather(byref(arguments))
    return rows


def _gather_shapes(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, half: bool) -> Tensor:
    dtype = torch.bfloat16 if half else volume.dtype
    return volume.new_empty(*ids.shape, volume.shape[1] * patch_size**3, dtype=dtype)


def _error(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> tuple[Tensor, Tensor]:
    pred, ids = pred.contiguous(), ids.contiguous()
    difference, squares = torch.empty_like(pred), torch.empty(ids.shape, dtype=torch.float64)
    arguments = _arguments(
        volume, ids, patch_size, difference, normalise=normalise, pred=pointer(pred), squares=pointer(squares)
    )
    cpu_library.library().patches_compare(byref(arguments))
    return (squares.sum() / pred.numel()).float(), difference


def _error_shapes(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> tuple[Tensor, Tensor]:
    return volume.new_empty(()), pred.new_empty(pred.shape)


def _error_backward(dloss: Tensor, difference: Tensor) -> Tensor:
    return difference * (dloss * (2 / difference.numel()))  # float32's range, which bfloat16 has


def _error_backward_shapes(dloss: Tensor, difference: Tensor) -> Tensor:
    return torch.empty_like(difference)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dloss: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return torch.ops.mamba_mae.patch_error_backward(dloss, *ctx.saved_tensors), None, None, None, None


register(
    "gather_patches(Tensor volume, Tensor ids, int patch_size, bool contrasts_first, bool half) -> Tensor",
    _gather,
    _gather_shapes,
)
register(
    "patch_error(Tensor pred, Tensor volume, Tensor ids, int patch_size, bool normalise) -> (Tensor, Tensor)",
    _error,
    _error_shapes,
)
register("patch_error_backward(Tensor dloss, Tensor difference) -> Tensor", _error_backward, _error_backward_shapes)
differentiate("patch_error", _differentiate, _save)
