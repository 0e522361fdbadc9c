"""torch.ops.mamba_mae.triton_add_norm: sum, rotation and norm by ops/triton/kernels/norm.py, and its gradient.

The sum is float32, and the backward pass needs nothing else. The normalised rows have the precision `dtype`.
Shapes: B batch, L tokens, E width.
"""

from typing import Any

import torch
from torch import Tensor

from ops.cpu.add_norm import backward_shapes, summand_gradients
from ops.operators import differentiate, register
from ops.triton.host import DEVICE, cores, launch, next_power
from ops.triton.kernels.norm import add_norm_backward, add_norm_forward

PROGRAMS_PER_CORE = 8  # of the backward pass; each has its own partial sum of the weight's gradient


def _options(width: int) -> dict[str, Any]:
    padded = max(32, next_power(width))
    return {"E": width, "EP": padded, "num_warps": max(1, min(8, padded // 256)), "num_stages": 1}


def fill(normed: Tensor, total: Tensor | None, hidden: Tensor, residual: Tensor | None, rotation: Tensor | None,
         weight: Tensor, scale: Tensor | None, eps: float) -> None:  # fmt: skip
    """`triton_add_norm` into existing contiguous tensors. total may be None: it is not wanted."""
    residual, rotation = (None if x is None else x.contiguous() for x in (residual, rotation))
    hidden = hidden.contiguous()
    batch, length, width = hidden.shape
    if not hidden.numel():
        return
    launch(
        add_norm_forward, (batch * length,),
        hidden, residual, rotation, weight, scale, normed, normed if total is None else total, eps, length,
        _rotation_stride(rotation, length), HAS_RESIDUAL=residual is not None, HAS_ROTATION=rotation is not None,
        HAS_SCALE=scale is not None, HAS_TOTAL=total is not None, **_options(width),
    )  # fmt: skip


def _rotation_stride(rotation: Tensor | None, length: int) -> int:
    """Rows of `rotation` from one sample to the next: 0 if all samples share it."""
    return 0 if rotation is None or rotation.shape[0] == 1 else length


def forward(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor, scale: Tensor | None,
            eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(normed, total): the operator triton_add_norm."""
    normed, total = forward_shapes(hidden, residual, rotation, weight, scale, eps, dtype)
    fill(normed, total, hidden, residual, rotation, weight, scale, eps)
    return normed, total


def backward(dnormed: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, weight: Tensor,
             scale: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of residual, of hidden (empty if it is the same) and of weight: triton_add_norm_backward."""
    dresidual, dhidden, _ = backward_shapes(dnormed, dtotal, total, rotation, weight, scale, eps, dtype)
    dnormed, dtotal = dnormed.contiguous(), dtotal.contiguous()
    rotation = None if rotation is None else rotation.contiguous()
    batch, length, width = total.shape
    if not total.numel():
        return dresidual, dhidden, torch.zeros_like(weight)
    programs = min(batch * length, cores(total.device) * PROGRAMS_PER_CORE)
    dweight = total.new_empty(programs, width)
    differs = dhidden.numel() > 0
    launch(
        add_norm_backward, (programs,),
        dnormed, dtotal, total, rotation, weight, scale, dresidual, dhidden if differs else dresidual, dweight, eps,
        batch * length, length, _rotation_stride(rotation, length), HAS_ROTATION=rotation is not None,
        HAS_SCALE=scale is not None, HAS_HIDDEN=differs, **_options(width),
    )  # fmt: skip
    return dresidual, dhidden, dweight.sum(0).to(weight.dtype)


def forward_shapes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor,
                   scale: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:  # fmt: skip
    return hidden.new_empty(hidden.shape, dtype=dtype), hidden.new_empty(hidden.shape, dtype=torch.float32)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, residual, rotation, weight, scale, ctx.eps, _ = inputs
    ctx.dtype, ctx.has_residual = hidden.dtype, residual is not None
    ctx.save_for_backward(output[1], rotation, weight, scale)


def _gradients(ctx: Any, dnormed: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
    run = torch.ops.mamba_mae.triton_add_norm_backward
    dresidual, dhidden, dweight = run(dnormed, dtotal, *ctx.saved_tensors, ctx.eps, ctx.dtype)
    return *summand_gradients(dresidual, dhidden, ctx.has_residual), None, dweight, None, None, None


register(
    "triton_add_norm(Tensor hidden, Tensor? residual, Tensor? rotation, Tensor weight, Tensor? scale, float eps,"
    " ScalarType dtype) -> (Tensor, Tensor)",
    forward,
    forward_shapes,
    device=DEVICE,
)
register(
    "triton_add_norm_backward(Tensor dnormed, Tensor dtotal, Tensor total, Tensor? rotation, Tensor weight,"
    " Tensor? scale, float eps, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
    backward,
    backward_shapes,
    device=DEVICE,
)
differentiate("triton_add_norm", _gradients, _save)
add_norm = torch.ops.mamba_mae.triton_add_norm
