"""torch.ops.mamba_mae.bimamba: ops/bimamba.py with the fused CPU kernels and little memory, and its gradient.

Kept for the backward pass are the input, the small projections (R + 2N numbers per token and direction) and the scans'
states; convolution, step sizes and gated output are computed again. Both directions share their temporary sequences
(ops/scratch.py) and add to the same results.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.bimamba import Direction
from ops.cpu_conv import ConvCall
from ops.cpu_scan import ScanCall, stored_shape
from ops.operators import differentiate, register, wants_gradient
from ops.scratch import scratch

PARAMETERS = len(Direction._fields)


def bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
    """`ops.bimamba_fn` for float32 or bfloat16 on a CPU; the matrix products are done in the precision of xz."""
    keep = wants_gradient(xz_BLx, *forward, *backward, out_weight)
    return torch.ops.mamba_mae.bimamba(xz_BLx, *operands(forward, backward, out_weight, xz_BLx.dtype), keep)[0]


def operands(forward: Direction, backward: Direction, out_weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The weights as the operators take them: those of products in `dtype`, cast once for both passes, and out_weight
    halved, so that the sum of both directions becomes their mean."""
    both = (w._replace(x_proj=w.x_proj.to(dtype), dt_proj=w.dt_proj.to(dtype)) for w in (forward, backward))
    return *next(both), *next(both), out_weight.to(dtype) / 2


def _directions(parameters: Sequence[Tensor]) -> tuple[tuple[Direction, bool], ...]:
    """(parameters, scanned from the last token to the first) of both directions."""
    return (Direction(*parameters[:PARAMETERS]), False), (Direction(*parameters[PARAMETERS:]), True)


def _scan_call(
    u: Tensor, projected: Tensor, z: Tensor, weights: Direction, reverse: bool, delta: Tensor
) -> tuple[ScanCall, Tensor]:
    """One direction's scan, its step sizes put into `delta`; and dt (B * L, R), from which they come."""
    dt, B, C = weights.parts(projected)
    dt = dt.flatten(0, 1)
    torch.mm(dt, weights.dt_proj.t(), out=delta.flatten(0, 1))
    B, C = B.float().unsqueeze(1), C.float().unsqueeze(1)
    call = ScanCall(u, delta, weights.A, B, C, weights.D, z, weights.dt_bias, True, reverse, accumulate=reverse)
    return call, dt


def mix(xz: Tensor, parameters: Sequence[Tensor], out_weight: Tensor, keep: bool) -> tuple[Tensor, ...]:
    """(B, L, 2I) contiguous -> (B, L, E), then what `mix_backward` needs of each direction, empty without `keep`: the
    projections (B, L, R + 2N) and the scan's states. parameters and out_weight: as from `operands`."""
    x, z = xz.chunk(2, dim=-1)
    u, delta, y = (scratch(name, x.shape, xz.dtype) for name in ("u", "delta", "y"))
    kept = []
    for weights, reverse in _directions(parameters):
        ConvCall(x, weights.conv_weight, weights.conv_bias, True, reverse).forward(u)
        projected = F.linear(u, weights.x_proj)
        scan, _ = _scan_call(u, projected, z, weights, reverse, delta)
        states = torch.empty(scan.states_shape(keep), dtype=torch.float32)
        scan.forward(y, states)
        kept += [projected if keep else xz.new_empty(0), states]
    return F.linear(y, out_weight), *kept


def mix_backward(
    dout: Tensor,
    xz: Tensor,
    parameters: Sequence[Tensor],
    out_weight: Tensor,
    kept: Sequence[Tensor] | None,
    dxz: Tensor,
) -> tuple[Tensor, ...]:
    """Fill `dxz`, the gradient of xz; those of parameters and out_weight are returned. kept: what `mix` kept; None: it
    is computed again, one direction at a time, so that the states of both never stand in memory."""
    dout = dout.to(xz.dtype).contiguous().flatten(0, 1)
    (x, z), (dx, dz) = xz.chunk(2, dim=-1), dxz.chunk(2, dim=-1)
    dy, u, delta, du, y = (scratch(name, x.shape, xz.dtype) for name in ("dy", "u", "delta", "du", "y"))
    u_rows, delta_rows, du_rows, y_rows = (x.flatten(0, 1) for x in (u, delta, du, y))
    torch.mm(dout, out_weight, out=dy.flatten(0, 1))
    grads = []
    for index, (weights, reverse) in enumerate(_directions(parameters)):
        conv = ConvCall(x, weights.conv_weight, weights.conv_bias, True, reverse, accumulate=reverse)
        conv.forward(u)
        projected = kept[2 * index] if kept else F.linear(u, weights.x_proj)
        scan, dt = _scan_call(u, projected, z, weights, reverse, delta)
        if kept:
            states = kept[2 * index + 1]
        else:
            states = scratch("states", scan.states_shape(keep=True), torch.float32)
            scan.forward(None, states)
        dA, dB, dC, dD, dbias = scan.backward(dy, states, du, delta, dz, y)
        d_parts = delta @ weights.dt_proj, dB[:, 0].to(xz.dtype), dC[:, 0].to(xz.dtype)
        d_rows = torch.cat(d_parts, dim=-1).flatten(0, 1)
        d_x_proj, d_dt_proj = torch.mm(d_rows.t(), u_rows), torch.mm(delta_rows.t(), dt)
        du_rows.addmm_(d_rows, weights.x_proj)
        d_conv_weight, d_conv_bias = conv.backward(du, dx)
        made = Direction(d_conv_weight, d_conv_bias, d_x_proj, d_dt_proj, dbias, dA, dD)
        grads += [gradient.to(weight.dtype).contiguous() for gradient, weight in zip(made, weights)]
    return *grads, torch.mm(dout.t(), y_rows)


@torch.autocast("cpu", enabled=False)  # the operands already are in the precision wanted
def _bimamba(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *parameters, out_weight, keep = arguments
    return mix(xz.contiguous(), parameters, out_weight, keep)


@torch.autocast("cpu", enabled=False)
def _bimamba_backward(dout: Tensor, xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *parameters, out_weight, projected, states, projected_b, states_b = arguments
    dxz = torch.empty_like(xz, memory_format=torch.contiguous_format)
    kept = projected, states, projected_b, states_b
    return dxz, *mix_backward(dout, xz.contiguous(), parameters, out_weight, kept, dxz)


def _bimamba_shapes(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *parameters, out_weight, keep = arguments
    (weights, _), _ = _directions(parameters)
    (batch, length, _), (channels, count) = xz.shape, weights.A.shape
    stored = stored_shape(batch, channels, length, count, 1, keep)
    projected = (batch, length, weights.x_proj.shape[0]) if keep else (0,)
    kept = [xz.new_empty(projected), xz.new_empty(stored, dtype=torch.float32)]
    return xz.new_empty(batch, length, out_weight.shape[0]), *kept, *map(torch.empty_like, kept)


def _bimamba_backward_shapes(dout: Tensor, xz: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    inputs = (xz, *arguments[: 2 * PARAMETERS + 1])
    return tuple(x.new_empty(x.shape) for x in inputs)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # or zeros as large as the states would be made for nothing


def _differentiate(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.mamba_mae.bimamba_backward(dout, *ctx.saved_tensors), None)


_NAMES = (*Direction._fields, *(f"{name}_b" for name in Direction._fields), "out_weight")
WEIGHTS = ", ".join(f"Tensor {name}" for name in _NAMES)
_INPUTS = f"Tensor xz, {WEIGHTS}"
_KEPT = ("projected", "states", "projected_b", "states_b")
register(f"bimamba({_INPUTS}, bool keep) -> ({', '.join(['Tensor'] * 5)})", _bimamba, _bimamba_shapes)
register(
    f"bimamba_backward(Tensor dout, {_INPUTS}, {', '.join(f'Tensor {name}' for name in _KEPT)})"
    f" -> ({', '.join(['Tensor'] * (1 + len(_NAMES)))})",
    _bimamba_backward,
    _bimamba_backward_shapes,
)
differentiate("bimamba", _differentiate, _save)
