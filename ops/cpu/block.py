"""torch.ops.mamba_mae.block: norm, input projection and bidirectional mixer as one operator that keeps little memory.

The forward pass keeps only the sum before the norm, which the next block's residual needs anyway. The backward pass
computes every other activation again. torch.utils.checkpoint around the same parts would also repeat the output
projection and the other half of the convolutions and step sizes, hold the states of both directions at a time, and keep
the hidden.
Shapes: B batch, L tokens, E width, I inner channels.
"""

from typing import Any

import torch
from torch import Tensor

from ops.cpu import add_norm as cpu_add_norm
from ops.cpu import backend as cpu
from ops.cpu.bimamba import WEIGHT_TENSORS, mix, mix_backward, stack_weights
from ops.cpu.scratch import scratch
from ops.operators import differentiate, register
from ops.reference.bimamba import Direction


def takes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, in_weight: Tensor) -> bool:
    """Whether the operator computes this block: in the precision of its weights, or in bfloat16 under autocast."""
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else in_weight.dtype
    return (
        autocast in cpu.PRECISIONS
        and in_weight.dtype == torch.float32
        and cpu_add_norm.takes(hidden, residual, rotation)
    )


def bimamba_block(
    hidden: Tensor,
    residual: Tensor | None,
    rotation: Tensor | None,
    norm_weight: Tensor,
    eps: float,
    scale: Tensor | None,
    in_weight: Tensor,
    forward: Direction,
    backward: Direction,
    out_weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """`ops.bimamba_block_fn` for what `takes` accepts."""
    cos_sin = cpu_add_norm.cos_sin(rotation)
    dtype = torch.bfloat16 if cpu.wants_bfloat16() else torch.float32
    weights = in_weight.to(dtype), *stack_weights(forward, backward, out_weight, dtype)
    return torch.ops.mamba_mae.block(hidden, residual, cos_sin, norm_weight, scale, *weights, eps)


def _project(normed: Tensor, in_weight: Tensor) -> Tensor:
    xz = scratch("xz", (*normed.shape[:2], len(in_weight)), normed.dtype)
    torch.mm(normed.flatten(0, 1), in_weight.t(), out=xz.flatten(0, 1))
    return xz


@torch.autocast("cpu", enabled=False)
def _block(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, norm_weight: Tensor, scale: Tensor | None,
           in_weight: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
    *weights, out_weight, eps = arguments
    normed = scratch("normed", hidden.shape, in_weight.dtype)
    total = hidden.new_empty(hidden.shape, dtype=torch.float32)
    cpu_add_norm.fill(normed, total, hidden, residual, rotation, norm_weight, scale, eps)
    return mix(_project(normed, in_weight), Direction(*weights), out_weight, keep=False)[0], total


@torch.autocast("cpu", enabled=False)
def _block_backward(dout: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, norm_weight: Tensor,
                    scale: Tensor | None, in_weight: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, out_weight, eps, dtype = arguments
    normed = scratch("normed", total.shape, in_weight.dtype)
    cpu_add_norm.fill_normed(normed, total, norm_weight, eps)
    xz = _project(normed, in_weight)
    dxz = scratch("dxz", xz.shape, xz.dtype)
    gradients = mix_backward(dout, xz, Direction(*weights), out_weight, None, dxz)
    rows, dxz_rows = normed.flatten(0, 1), dxz.flatten(0, 1)
    d_in_weight = torch.mm(dxz_rows.t(), rows)
    torch.mm(dxz_rows, in_weight, out=rows)  # overwrites normed by its gradient
    sums = cpu_add_norm.backward(normed, dtotal, total, rotation, norm_weight, scale, eps, dtype)
    return *sums, d_in_weight, *gradients


def _block_shapes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, norm_weight: Tensor,
                  scale: Tensor | None, in_weight: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:  # fmt: skip
    *_, out_weight, _ = arguments
    out = in_weight.new_empty(*hidden.shape[:2], out_weight.shape[0])
    return out, hidden.new_empty(hidden.shape, dtype=torch.float32)


def _block_backward_shapes(dout: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, norm_weight: Tensor,
                           scale: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, eps, dtype = arguments
    sums = cpu_add_norm.backward_shapes(dout, dtotal, total, rotation, norm_weight, scale, eps, dtype)
    return *sums, *(x.new_empty(x.shape) for x in weights)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, residual, *constants, ctx.eps = inputs
    ctx.dtype, ctx.has_residual = hidden.dtype, residual is not None
    ctx.save_for_backward(output[1], *constants)


def _gradients(ctx: Any, dout: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
    run = torch.ops.mamba_mae.block_backward
    dresidual, dhidden, d_norm_weight, *gradients = run(dout, dtotal, *ctx.saved_tensors, ctx.eps, ctx.dtype)
    summands = cpu_add_norm.summand_gradients(dresidual, dhidden, ctx.has_residual)
    return *summands, None, d_norm_weight, None, *gradients, None


_INPUTS = f"Tensor? rotation, Tensor norm_weight, Tensor? scale, Tensor in_weight, {WEIGHT_TENSORS}, float eps"
register(
    f"block(Tensor hidden, Tensor? residual, {_INPUTS}) -> (Tensor, Tensor)",
    _block,
    _block_shapes,
)
register(
    f"block_backward(Tensor dout, Tensor dtotal, Tensor total, {_INPUTS}, ScalarType dtype)"
    f" -> ({', '.join(['Tensor'] * (4 + WEIGHT_TENSORS.count('Tensor')))})",
    _block_backward,
    _block_backward_shapes,
)
differentiate("block", _gradients, _save)
