"""torch.ops.mamba_mae.triton_bimamba: ops/reference/bimamba.py with the kernels of this folder, and its gradient.

As on a CPU, the forward pass keeps the input, the small projections (P = R + 2N numbers per token and direction) and
the states at segment borders. The backward pass computes convolution, step sizes and gated output again. Both
directions go through every product and kernel at once.
Shapes: B batch, L tokens, x twice the inner width I, E model width, N states, R rank of the step size, D directions
(always 2), S segments.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.cpu.bimamba import WEIGHT_TENSORS
from ops.operators import differentiate, register
from ops.precision import below_autocast
from ops.reference.bimamba import Direction
from ops.triton import conv, scan
from ops.triton.host import DEVICE, steps_per_segment


def bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
    """`ops.bimamba_fn` on a GPU; the matrix products are done in the precision of xz."""
    weights = stack_weights(forward, backward, out_weight, xz_BLx.dtype)
    return torch.ops.mamba_mae.triton_bimamba(xz_BLx, *weights, False)[0]


def stack_weights(
    forward: Direction, backward: Direction, out_weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The weights as the operators take them, cast once for both passes: both directions stacked, the weights of matrix
    products in `dtype`, the others in float32."""
    both = Direction(*(torch.stack(pair) for pair in zip(forward, backward)))
    wide = {name: getattr(both, name).float() for name in ("conv_weight", "conv_bias", "dt_bias", "A", "D")}
    both = both._replace(x_proj=both.x_proj.to(dtype), dt_proj=both.dt_proj.to(dtype), **wide)
    return *both, out_weight.to(dtype)


def _convolve(x: Tensor, weights: Direction) -> Tensor:
    """(D, B, L, I)."""
    u = x.new_empty(len(weights.A), *x.shape)
    conv.forward(x, weights.conv_weight, weights.conv_bias, True, False, u)
    return u


def _scan(u: Tensor, projected: Tensor, z: Tensor, weights: Direction) -> tuple[scan.ScanArguments, Tensor]:
    """The arguments of the scan, and dt (D, B * L, R), of which its step sizes are a projection."""
    rank = weights.dt_proj.shape[2]
    dt = projected[..., :rank].flatten(1, 2)
    B, C = projected[..., rank:].float().chunk(2, dim=-1)  # cast once, not in every thread that reads them
    delta = torch.bmm(dt, weights.dt_proj.mT).view_as(u)
    arguments = scan.ScanArguments(
        u, delta, weights.A, B.unsqueeze(2), C.unsqueeze(2), weights.D, z, weights.dt_bias,
        softplus=True, reverse=False, factor=0.5,
    )  # fmt: skip
    return arguments, dt


def mix(xz: Tensor, weights: Direction, out_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 2I) -> (B, L, E), and what `mix_backward` needs: projections (2, B, L, P) and states (2, B, S, N, I)."""
    x, z = xz.chunk(2, dim=-1)
    u = _convolve(x, weights)
    projected = torch.bmm(u.flatten(1, 2), weights.x_proj.mT).unflatten(1, x.shape[:2])
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    starts, _ = scan.forward(_scan(u, projected, z, weights)[0], y)
    return F.linear(y, out_weight), projected, starts


def mix_backward(
    dout: Tensor, xz: Tensor, weights: Direction, out_weight: Tensor, kept: Sequence[Tensor], dxz: Tensor
) -> tuple[Tensor, ...]:
    """Fill `dxz`, the gradient of xz. Returns the gradients of weights and out_weight. kept: what `mix` kept."""
    projected, starts = kept
    dout = dout.to(xz.dtype).contiguous().flatten(0, 1)
    (x, z), (dx, dz) = xz.chunk(2, dim=-1), dxz.chunk(2, dim=-1)
    dy = torch.mm(dout, out_weight).view(x.shape)
    u = _convolve(x, weights)
    call, dt = _scan(u, projected, z, weights)
    y = torch.empty_like(dy)
    gradients = scan.backward(call, dy, starts, dz, y)
    d_projected = torch.empty_like(projected)
    states = weights.A.shape[2]
    d_dt, d_matrices = d_projected.split_with_sizes([dt.shape[2], 2 * states], dim=-1)
    d_matrices.copy_(gradients.dBC.squeeze(2))
    flat = (v.flatten(1, 2) for v in (u, gradients.du, gradients.ddelta, d_projected))
    u_rows, du_rows, ddelta_rows, d_rows = flat
    d_dt.copy_(torch.bmm(ddelta_rows, weights.dt_proj).view_as(d_dt))
    d_x_proj, d_dt_proj = torch.bmm(d_rows.mT, u_rows), torch.bmm(ddelta_rows.mT, dt)
    du_rows.baddbmm_(d_rows, weights.x_proj)
    d_taps, d_conv_bias = conv.backward(gradients.du, x, weights.conv_weight, weights.conv_bias, True, False, dx)
    grads = Direction(d_taps, d_conv_bias, d_x_proj, d_dt_proj, gradients.dbias, gradients.dA, gradients.dD)
    return *(g.to(w.dtype).contiguous() for g, w in zip(grads, weights)), torch.mm(dout.t(), y.flatten(0, 1))


@below_autocast
def _bimamba(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *weights, out_weight, keep = arguments
    out, projected, starts = mix(xz.contiguous(), Direction(*weights), out_weight)
    return out, *((projected, starts) if keep else (xz.new_empty(0), starts.new_empty(0)))


@below_autocast
def _bimamba_backward(dout: Tensor, xz: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    *weights, out_weight, projected, starts = arguments
    dxz = torch.empty_like(xz, memory_format=torch.contiguous_format)
    return dxz, *mix_backward(dout, xz.contiguous(), Direction(*weights), out_weight, (projected, starts), dxz)


def kept_shapes(like: Tensor, weights: Direction) -> tuple[tuple[int, ...], ...]:
    """Shapes of the projections and the states that `mix` keeps for tokens (B, L, ...)."""
    batch, length = like.shape[:2]
    _, inner, states = weights.A.shape
    steps = steps_per_segment(length, scan.blocks(inner, 1, scan.BACKWARD_CHANNELS) * batch, like.device)
    return (2, batch, length, weights.x_proj.shape[1]), (2, batch, -(-length // steps), states, inner)


def _bimamba_shapes(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *weights, out_weight, keep = arguments
    kept = kept_shapes(xz, Direction(*weights)) if keep else ((0,), (0,))
    out = xz.new_empty(*xz.shape[:2], out_weight.shape[0])
    return out, xz.new_empty(kept[0]), xz.new_empty(kept[1], dtype=torch.float32)


def _bimamba_backward_shapes(dout: Tensor, xz: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    *weights, _, _ = arguments
    return tuple(x.new_empty(x.shape) for x in (xz, *weights))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.mamba_mae.triton_bimamba_backward(dout, *ctx.saved_tensors), None)


_INPUTS = f"Tensor xz, {WEIGHT_TENSORS}"
_GRADIENTS = ", ".join(["Tensor"] * _INPUTS.count("Tensor"))
register(f"triton_bimamba({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)", _bimamba, _bimamba_shapes, device=DEVICE)
register(
    f"triton_bimamba_backward(Tensor dout, {_INPUTS}, Tensor projected, Tensor starts) -> ({_GRADIENTS})",
    _bimamba_backward,
    _bimamba_backward_shapes,
    device=DEVICE,
)
differentiate("triton_bimamba", _gradients, _save)
