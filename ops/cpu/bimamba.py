"""torch.ops.mamba_mae.bimamba: ops/reference/bimamba.py with the fused CPU kernels and little memory, and its gradient.

The forward pass keeps the input, the small projections (P = R + 2N numbers per token and direction) and the scans'
states. The backward pass computes convolution, step sizes and gated output again. Short sequences go through every
product and kernel with both directions at once, because with few tokens a call costs as much as its arithmetic. In long
sequences one direction follows the other in the same temporary memory (ops/cpu/scratch.py).
Shapes: B batch, L tokens, x twice the inner width I, E model width, N states, R rank of the step size, D directions (1
or 2).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.cpu.conv import ConvCall
from ops.cpu.scan import ScanCall, stored_shape
from ops.cpu.scratch import scratch
from ops.operators import differentiate, register
from ops.reference.bimamba import Direction

# The weights in an operator's schema; those of both directions are stacked: (2, ...).
WEIGHT_TENSORS = ", ".join(f"Tensor {name}" for name in (*Direction._fields, "out_weight"))
JOINT_BYTES = 16 << 20  # of a sequence (B, L, I): up to this size, both directions are computed at once


def bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
    """`ops.bimamba_fn` for float32 or bfloat16 on a CPU; the matrix products are done in the precision of xz."""
    return torch.ops.mamba_mae.bimamba(xz_BLx, *stack_weights(forward, backward, out_weight, xz_BLx.dtype), False)[0]


def stack_weights(
    forward: Direction, backward: Direction, out_weight: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The weights as the operators take them: both directions stacked, and the weights of matrix products in `dtype`,
    cast once for both passes."""
    both = Direction(*(torch.stack(pair) for pair in zip(forward, backward)))
    both = both._replace(x_proj=both.x_proj.to(dtype), dt_proj=both.dt_proj.to(dtype))
    return *both, out_weight.to(dtype)


class _Directions:
    """Both directions, or one of them, up to the output projection.

    weights: their parameters (D, ...); index: their slice of what is kept for both directions.
    """

    def __init__(self, x: Tensor, z: Tensor, weights: Direction, index: slice) -> None:
        self.x, self.z, self.weights, self.index = x, z, weights, index
        self.is_second = index.start == 1  # it starts from the last token and adds to the first one's results
        taps, bias = weights.conv_weight, weights.conv_bias
        self.conv = ConvCall(x, taps, bias, True, reverse=self.is_second, accumulate=self.is_second)

    def sequence(self, name: str) -> Tensor:
        """Temporary memory (D, B, L, I). It is valid until the next call with this name."""
        return scratch(name, (len(self.weights.A), *self.x.shape), self.x.dtype)

    def convolve(self) -> Tensor:
        u = self.sequence("u")
        self.conv.forward(u)
        return u

    def project(self, u: Tensor, projected: Tensor) -> None:
        """Fill `projected` (D, B, L, P)."""
        torch.bmm(u.flatten(1, 2), self.weights.x_proj.mT, out=projected.flatten(1, 2))

    def scan(self, u: Tensor, projected: Tensor) -> tuple[ScanCall, Tensor, Tensor]:
        """The call of the scan, its step sizes (D, B, L, I), and dt (D, B * L, R), of which they are a projection."""
        delta, (dt, B, C) = self.sequence("delta"), self.weights.split_projection(projected)
        dt = dt.flatten(1, 2)
        torch.bmm(dt, self.weights.dt_proj.mT, out=delta.flatten(1, 2))
        call = ScanCall(
            u, delta, self.weights.A, B.unsqueeze(2), C.unsqueeze(2), self.weights.D, self.z, self.weights.dt_bias,
            softplus=True, reverse=self.is_second, accumulate=self.is_second, factor=0.5,
        )  # fmt: skip
        return call, delta, dt

    def backward(self, dy: Tensor, y: Tensor, dx: Tensor, dz: Tensor, kept: Sequence[Tensor] | None) -> Direction:
        """Fill y, dx and dz; the second direction adds to them. Returns the gradients of `weights`."""
        u = self.convolve()
        if kept:
            projected, states = (x[self.index] for x in kept)
            scan, delta, dt = self.scan(u, projected)
        else:
            projected = scratch("projected", (*u.shape[:3], self.weights.x_proj.shape[1]), u.dtype)
            self.project(u, projected)
            scan, delta, dt = self.scan(u, projected)
            states = scratch("states", scan.states_shape(keep=True), torch.float32)
            scan.forward(None, states)
        du, d_projected = self.sequence("du"), scratch("d_projected", projected.shape, u.dtype)
        d_dt, dB, dC = self.weights.split_projection(d_projected)
        ddelta = delta  # the kernel overwrites delta by its gradient
        dA, dD, d_dt_bias = scan.backward(dy, states, du, ddelta, dz, dB.unsqueeze(2), dC.unsqueeze(2), y)
        u_rows, du_rows, ddelta_rows, d_rows = (x.flatten(1, 2) for x in (u, du, ddelta, d_projected))
        torch.bmm(ddelta_rows, self.weights.dt_proj, out=d_dt.flatten(1, 2))
        d_x_proj, d_dt_proj = torch.bmm(d_rows.mT, u_rows), torch.bmm(ddelta_rows.mT, dt)
        du_rows.baddbmm_(d_rows, self.weights.x_proj)
        return Direction(*self.conv.backward(du, dx), d_x_proj, d_dt_proj, d_dt_bias, dA, dD)


def _directions(xz: Tensor, weights: Direction) -> Iterator[_Directions]:
    """Both directions at once for a short sequence, one after the other for a long one."""
    x, z = xz.chunk(2, dim=-1)
    if x.numel() * x.element_size() <= JOINT_BYTES:
        yield _Directions(x, z, weights, slice(0, 2))
        return
    for index in slice(0, 1), slice(1, 2):
        yield _Directions(x, z, Direction(*(w[index] for w in weights)), index)


def mix(xz: Tensor, weights: Direction, out_weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 2I) contiguous -> (B, L, E), and what `mix_backward` needs: the projections (2, B, L, P) and the scans'
    states, which are empty without `keep`. weights, out_weight: as from `stack_weights`."""
    projected, states = _kept(xz, weights, keep)
    y = scratch("y", (*xz.shape[:2], xz.shape[2] // 2), xz.dtype)
    for part in _directions(xz, weights):
        u, own = part.convolve(), projected[part.index]
        part.project(u, own)
        part.scan(u, own)[0].forward(y, states[part.index])
    return F.linear(y, out_weight), projected, states


def _kept(xz: Tensor, weights: Direction, keep: bool) -> tuple[Tensor, Tensor]:
    """Uninitialised projections and states of both directions."""
    (batch, length, width), projections = xz.shape, weights.x_proj.shape[1]
    stored = stored_shape(batch, width // 2, length, weights.A.shape[2], 1, keep)
    return xz.new_empty(2, batch, length, projections), xz.new_empty(2, *stored, dtype=torch.float32)


def mix_backward(
    dout: Tensor, xz: Tensor, weights: Direction, out_weight: Tensor, kept: Sequence[Tensor] | None, dxz: Tensor
) -> tuple[Tensor, ...]:
    """Fill `dxz`, the gradient of xz. Returns the gradients of weights and out_weight.

    kept: what `mix` kept. None: it is computed again, so that the states of all blocks never stand in memory at once.
    """
    dout = dout.to(xz.dtype).contiguous().flatten(0, 1)
    dx, dz = dxz.chunk(2, dim=-1)
    dy, y = (scratch(name, dx.shape, xz.dtype) for name in ("dy", "y"))
    torch.mm(dout, out_weight, out=dy.flatten(0, 1))
    by_part = [part.backward(dy, y, dx, dz, kept) for part in _directions(xz, weights)]
    grads = by_part[0] if len(by_part) == 1 else map(torch.cat, zip(*by_part))
    return *(grad.to(w.dtype) for grad, w in zip(grads, weights)), torch.mm(dout.t(), y.flatten(0, 1))


@torch.autocast("cpu", enabled=False)  # the operands already have the right precision
def _bimamba(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *weights, out_weight, keep = arguments
    out, projected, states = mix(xz.contiguous(), Direction(*weights), out_weight, keep)
    return out, projected if keep else xz.new_empty(0), states


@torch.autocast("cpu", enabled=False)
def _bimamba_backward(dout: Tensor, xz: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    *weights, out_weight, projected, states = arguments
    dxz = torch.empty_like(xz, memory_format=torch.contiguous_format)
    return dxz, *mix_backward(dout, xz.contiguous(), Direction(*weights), out_weight, (projected, states), dxz)


def _bimamba_shapes(xz: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *weights, out_weight, keep = arguments
    projected, states = _kept(xz, Direction(*weights), keep)
    return xz.new_empty(*xz.shape[:2], out_weight.shape[0]), projected if keep else xz.new_empty(0), states


def _bimamba_backward_shapes(dout: Tensor, xz: Tensor, *arguments: Tensor) -> tuple[Tensor, ...]:
    *weights, _, _ = arguments
    return tuple(x.new_empty(x.shape) for x in (xz, *weights))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, _ = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)  # otherwise PyTorch makes zeros as large as the states


def _gradients(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.mamba_mae.bimamba_backward(dout, *ctx.saved_tensors), None)


_INPUTS = f"Tensor xz, {WEIGHT_TENSORS}"
_GRADIENTS = ", ".join(["Tensor"] * _INPUTS.count("Tensor"))
register(f"bimamba({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)", _bimamba, _bimamba_shapes)
register(
    f"bimamba_backward(Tensor dout, {_INPUTS}, Tensor projected, Tensor states) -> ({_GRADIENTS})",
    _bimamba_backward,
    _bimamba_backward_shapes,
)
differentiate("bimamba", _gradients, _save)
