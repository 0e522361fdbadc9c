"""torch.ops.mamba_mae.gather_patches and linear_patch_error by ops/cpu/csrc/patches.cpp, and the error's gradient."""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from ops.cpu.library import Patches, pointer
from ops.operators import differentiate, register
from ops.reference.patches import check_ids

CHUNK = 2048  # values of each patch that are predicted at a time: 3 MB of bfloat16 at patch 16, which fit into a cache


def takes(volume: Tensor, *others: Tensor) -> bool:
    """Whether the kernels can read this volume and compute on `others`. The volume must be float32, need no gradient,
    and have the voxels of a line side by side in memory."""
    readable = volume.dtype == torch.float32 and not volume.requires_grad and volume.stride(4) == 1
    return readable and all(cpu.unavailable(x) is None for x in (volume, *others))


def gather_patches(volume: Tensor, ids: Tensor | None, patch_size: int, contrasts_first: bool) -> Tensor:
    """`ops.gather_patches_fn` for what `takes` accepts, in the autocast precision, which saves its reader a copy."""
    if ids is None:
        tokens = volume.shape[2:].numel() // patch_size**3
        ids = torch.arange(tokens).expand(volume.shape[0], tokens)
    return torch.ops.mamba_mae.gather_patches(volume, ids, patch_size, contrasts_first, cpu.wants_bfloat16())


def linear_patch_error(
    hidden: Tensor, weight: Tensor, bias: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool
) -> Tensor:
    """`ops.linear_patch_error_fn` for what `takes` accepts, in the autocast precision."""
    dtype = torch.bfloat16 if cpu.wants_bfloat16() else hidden.dtype
    layer = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
    return torch.ops.mamba_mae.linear_patch_error(*layer, volume, ids, patch_size, normalise, False)[0]


def _arguments(volume: Tensor, ids: Tensor, patch_size: int, dtype: torch.dtype, **more: Any) -> Patches:
    check_ids(ids, volume, patch_size)
    batch, contrasts, z, y, x = volume.shape
    return Patches(
        batch=batch, kept=ids.shape[1], contrasts=contrasts, patch=patch_size,
        grid_z=z // patch_size, grid_y=y // patch_size, grid_x=x // patch_size, threads=torch.get_num_threads(),
        batch_stride=volume.stride(0), contrast_stride=volume.stride(1), plane_stride=volume.stride(2),
        line_stride=volume.stride(3), bfloat16_rows=dtype == torch.bfloat16, volume=pointer(volume), ids=pointer(ids),
        **more,
    )  # fmt: skip


def _gather(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, half: bool) -> Tensor:
    rows, ids = _gather_shapes(volume, ids, patch_size, contrasts_first, half), ids.contiguous()
    arguments = _arguments(volume, ids, patch_size, rows.dtype, contrasts_first=contrasts_first, rows=pointer(rows))
    cpu_library.library().patches_gather(byref(arguments))
    return rows


def _gather_shapes(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, half: bool) -> Tensor:
    dtype = torch.bfloat16 if half else volume.dtype
    return volume.new_empty(*ids.shape, volume.shape[1] * patch_size**3, dtype=dtype)


def _error(hidden: Tensor, weight: Tensor, bias: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool,
           keep: bool) -> tuple[Tensor, ...]:  # fmt: skip
    """(loss, dhidden, dweight, dbias): the gradients are those of half the sum of squares, and empty without `keep`."""
    rows, ids = hidden.flatten(0, 1), ids.contiguous()
    squares = torch.zeros(ids.shape, dtype=torch.float64)
    moments = torch.empty(*ids.shape, 2) if normalise else None
    arguments = _arguments(volume, ids, patch_size, rows.dtype, squares=pointer(squares), moments=pointer(moments))
    dhidden = torch.zeros(rows.shape if keep else 0, dtype=torch.float32)
    dweight, dbias = (torch.empty_like(x) if keep else x.new_empty(0) for x in (weight, bias))
    plane = weight.shape[0] // patch_size
    step = min(max(1, CHUNK // plane), patch_size)
    memory = torch.empty(len(rows) * step * plane, dtype=rows.dtype)
    for first in range(0, patch_size, step):
        planes = min(step, patch_size - first)
        part = slice(first * plane, (first + planes) * plane)
        pred = memory[: len(rows) * planes * plane].view(len(rows), planes * plane)
        torch.addmm(bias[part], rows, weight[part].t(), out=pred)
        arguments.first_plane, arguments.planes, arguments.rows = first, planes, pointer(pred)
        cpu_library.library().patches_compare(byref(arguments))  # overwrites pred by the difference
        if keep:
            dhidden += pred @ weight[part]
            torch.mm(pred.t(), rows, out=dweight[part])
            torch.sum(pred, 0, out=dbias[part])
    loss = (squares.sum() / (len(rows) * len(weight))).float()
    return loss, dhidden.to(hidden.dtype).view(hidden.shape if keep else 0), dweight, dbias


def _error_shapes(hidden: Tensor, weight: Tensor, bias: Tensor, volume: Tensor, ids: Tensor, patch_size: int,
                  normalise: bool, keep: bool) -> tuple[Tensor, ...]:  # fmt: skip
    return volume.new_empty(()), *(x.new_empty(x.shape if keep else 0) for x in (hidden, weight, bias))


def _error_backward(dloss: Tensor, dhidden: Tensor, dweight: Tensor, dbias: Tensor) -> tuple[Tensor, ...]:
    scale = dloss * (2 / max(1, dhidden.shape[:-1].numel() * len(dbias)))  # bfloat16 has float32's range
    return dhidden * scale, dweight * scale, dbias * scale


def _error_backward_shapes(dloss: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(x) for x in gradients)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dloss: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return *torch.ops.mamba_mae.linear_patch_error_backward(dloss, *ctx.saved_tensors), None, None, None, None, None


register(
    "gather_patches(Tensor volume, Tensor ids, int patch_size, bool contrasts_first, bool half) -> Tensor",
    _gather,
    _gather_shapes,
)
register(
    "linear_patch_error(Tensor hidden, Tensor weight, Tensor bias, Tensor volume, Tensor ids, int patch_size,"
    " bool normalise, bool keep) -> (Tensor, Tensor, Tensor, Tensor)",
    _error,
    _error_shapes,
)
register(
    "linear_patch_error_backward(Tensor dloss, Tensor dhidden, Tensor dweight, Tensor dbias)"
    " -> (Tensor, Tensor, Tensor)",
    _error_backward,
    _error_backward_shapes,
)
differentiate("linear_patch_error", _gradients, _save)
