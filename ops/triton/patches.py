"""torch.ops.mamba_mae.triton_gather_patches and triton_patch_error, and the gradient of the error."""

from typing import Any

import torch
from torch import Tensor

from ops.operators import differentiate, register
from ops.reference.patches import check_ids
from ops.triton.host import DEVICE, launch, next_power
from ops.triton.kernels.patches import compare_rows, gather_rows, scale_rows

VALUES = 1024  # values of a patch that a program reads at a time


def _options(volume: Tensor, patch_size: int) -> dict[str, Any]:
    values = volume.shape[1] * patch_size**3
    chunk = min(VALUES, next_power(values))
    return {"PATCH": patch_size, "CONTRASTS": volume.shape[1], "P": values, "VALUES": chunk,
            "num_warps": max(1, min(4, chunk // 128)), "num_stages": 1}  # fmt: skip


def _grid(volume: Tensor, patch_size: int) -> tuple[int, int]:
    return volume.shape[3] // patch_size, volume.shape[4] // patch_size


def gather_rows_of(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, dtype: torch.dtype) -> Tensor:
    """(B, K, P): the operator triton_gather_patches."""
    check_ids(ids, volume, patch_size)
    rows = _gather_shapes(volume, ids, patch_size, contrasts_first, dtype)
    if rows.numel():
        launch(
            gather_rows, (ids.numel(),),
            volume, ids.contiguous(), rows, ids.shape[1], *_grid(volume, patch_size), *volume.stride(),
            CONTRASTS_FIRST=contrasts_first, **_options(volume, patch_size),
        )  # fmt: skip
    return rows


def _gather_shapes(volume: Tensor, ids: Tensor, patch_size: int, contrasts_first: bool, dtype: torch.dtype) -> Tensor:
    return volume.new_empty(*ids.shape, volume.shape[1] * patch_size**3, dtype=dtype)


def compute_error(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> tuple[Tensor, Tensor]:
    """(loss, difference of prediction and target): the operator triton_patch_error."""
    check_ids(ids, volume, patch_size)
    pred = pred.contiguous()
    difference, squares = torch.empty_like(pred), volume.new_empty(ids.shape)
    if pred.numel():
        launch(
            compare_rows, (ids.numel(),),
            pred, volume, ids.contiguous(), difference, squares, ids.shape[1], *_grid(volume, patch_size),
            *volume.stride(), NORMALISE=normalise, **_options(volume, patch_size),
        )  # fmt: skip
    return squares.sum() / pred.numel(), difference


def _error_shapes(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> tuple[Tensor, Tensor]:
    return volume.new_empty(()), pred.new_empty(pred.shape)


def scaled(dloss: Tensor, difference: Tensor) -> Tensor:
    """The gradient of the prediction: the operator triton_patch_error_backward."""
    scale, dpred = dloss.float() * (2 / max(1, difference.numel())), torch.empty_like(difference)
    if dpred.numel():
        launch(
            scale_rows,
            (-(-difference.numel() // VALUES),),
            difference,
            scale,
            dpred,
            difference.numel(),
            VALUES=VALUES,
            num_warps=4,
            num_stages=1,
        )
    return dpred


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dloss: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return torch.ops.mamba_mae.triton_patch_error_backward(dloss, *ctx.saved_tensors), None, None, None, None


register(
    "triton_gather_patches(Tensor volume, Tensor ids, int patch_size, bool contrasts_first, ScalarType dtype)"
    " -> Tensor",
    gather_rows_of,
    _gather_shapes,
    device=DEVICE,
)
register(
    "triton_patch_error(Tensor pred, Tensor volume, Tensor ids, int patch_size, bool normalise) -> (Tensor, Tensor)",
    compute_error,
    _error_shapes,
    device=DEVICE,
)
register(
    "triton_patch_error_backward(Tensor dloss, Tensor difference) -> Tensor",
    scaled,
    lambda dloss, difference: torch.empty_like(difference),
    device=DEVICE,
)
differentiate("triton_patch_error", _gradients, _save)
gather = torch.ops.mamba_mae.triton_gather_patches
error = torch.ops.mamba_mae.triton_patch_error
