"""torch.ops.mamba_mae.triton_block: norm, input projection and bidirectional mixer as one operator.

The forward pass keeps the sum before the norm, which the next block's residual needs anyway, the small projections and
the states at segment borders. The backward pass computes every other activation again.
Shapes: B batch, L tokens, E width, I inner channels.
"""

from typing import Any

import torch
from torch import Tensor

from ops.cpu.bimamba import WEIGHT_TENSORS
from ops.operators import differentiate, register
from ops.precision import below_autocast
from ops.reference.bimamba import Direction
from ops.triton import add_norm
from ops.triton.bimamba import kept_shapes, mix, mix_backward
from ops.triton.host import DEVICE


def _project(normed: Tensor, in_weight: Tensor) -> Tensor:
    return torch.mm(normed.flatten(0, 1), in_weight.t()).unflatten(0, normed.shape[:2])


@below_autocast
def _block(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, norm_weight: Tensor, scale: Tensor | None,
           in_weight: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, out_weight, eps = arguments
    normed, total = add_norm.forward(hidden, residual, rotation, norm_weight, scale, eps, in_weight.dtype)
    out, projected, starts = mix(_project(normed, in_weight), Direction(*weights), out_weight)
    return out, total, projected, starts


@below_autocast
def _block_backward(dout: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, norm_weight: Tensor,
                    scale: Tensor | None, in_weight: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, out_weight, projected, starts, eps, dtype = arguments
    normed = torch.empty_like(total, dtype=in_weight.dtype)
    add_norm.fill(normed, None, total, None, None, norm_weight, None, eps)
    xz = _project(normed, in_weight)
    dxz = torch.empty_like(xz)
    gradients = mix_backward(dout, xz, Direction(*weights), out_weight, (projected, starts), dxz)
    rows = dxz.flatten(0, 1)
    d_in_weight = torch.mm(rows.t(), normed.flatten(0, 1))
    dnormed = torch.mm(rows, in_weight).view(total.shape)
    sums = add_norm.backward(dnormed, dtotal, total, rotation, norm_weight, scale, eps, dtype)
    return *sums, d_in_weight, *gradients


def _block_shapes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, norm_weight: Tensor,
                  scale: Tensor | None, in_weight: Tensor, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, out_weight, _ = arguments
    out = in_weight.new_empty(*hidden.shape[:2], out_weight.shape[0])
    projected, starts = kept_shapes(hidden, Direction(*weights))
    total = hidden.new_empty(hidden.shape, dtype=torch.float32)
    return out, total, in_weight.new_empty(projected), total.new_empty(starts)


def _block_backward_shapes(dout: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, norm_weight: Tensor,
                           scale: Tensor | None, *arguments: Any) -> tuple[Tensor, ...]:  # fmt: skip
    *weights, _, _, eps, dtype = arguments
    sums = add_norm.backward_shapes(dout, dtotal, total, rotation, norm_weight, scale, eps, dtype)
    return *sums, *(x.new_empty(x.shape) for x in weights)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, residual, *constants, ctx.eps = inputs
    ctx.dtype, ctx.has_residual = hidden.dtype, residual is not None
    _, total, *kept = output
    ctx.save_for_backward(total, *constants, *kept)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor | None, dtotal: Tensor | None, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    total, out_weight = tensors[0], tensors[-3]
    dtotal = torch.zeros_like(total) if dtotal is None else dtotal
    dout = out_weight.new_zeros(*total.shape[:2], len(out_weight)) if dout is None else dout
    run = torch.ops.mamba_mae.triton_block_backward
    dresidual, dhidden, d_norm_weight, *gradients = run(dout, dtotal, *tensors, ctx.eps, ctx.dtype)
    summands = add_norm.summand_gradients(dresidual, dhidden, ctx.has_residual)
    return *summands, None, d_norm_weight, None, *gradients, None


_INPUTS = f"Tensor? rotation, Tensor norm_weight, Tensor? scale, Tensor in_weight, {WEIGHT_TENSORS}"
register(
    f"triton_block(Tensor hidden, Tensor? residual, {_INPUTS}, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
    _block,
    _block_shapes,
    device=DEVICE,
)
register(
    f"triton_block_backward(Tensor dout, Tensor dtotal, Tensor total, {_INPUTS}, Tensor projected, Tensor starts,"
    f" float eps, ScalarType dtype) -> ({', '.join(['Tensor'] * (4 + WEIGHT_TENSORS.count('Tensor')))})",
    _block_backward,
    _block_backward_shapes,
    device=DEVICE,
)
differentiate("triton_block", _gradients, _save)
block = torch.ops.mamba_mae.triton_block
