"""torch.ops.mamba_mae.bimamba: ops/reference/bimamba.py with the fused CPU kernels and little memory, and its gradient.

Kept for the backward pass are the input, the small projections (P = R + 2N numbers per token and direction) and the
scans' states; convolution, step sizes and gated output are computed again. Both directions go through every product and
kernel together, as a batch of two: with few tokens, calls cost as much as what they compute. In long sequences one goes
after the other, in the same temporary memory (ops/cpu/scratch.py).
Shapes as in ops/reference/bimamba.py; D directions, 1 or 2.
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

WEIGHTS = ", ".join(f"Tensor {name}" for name in (*Direction._fields, "out_weight"))  # of both directions: (2, ...)
TOGETHER = 16 << 20  # bytes of a sequence (B, L, I) up to which both directions go together


def bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
    """`ops.bimamba_fn` for float32 or bfloat16 on a CPU; the matrix products are done in the precision of xz."""
    return torch.ops.mamba_mae.bimamba(xz_BLx, *stacked(forward, backward, out_weight, xz_BLx.dtype), False)[0]


def stacked(forward: Direction, backward: Direction, out_weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The weights as the operators take them: those of both directions one above the other, those of products in
    `dtype`, cast once for both passes."""
    both = Direction(*(torch.stack(pair) for pair in zip(forward, backward)))
    both = both._replace(x_proj=both.x_proj.to(dtype), dt_proj=both.dt_proj.to(dtype))
    return *both, out_weight.to(dtype)


class _Part:
    """Both directions, or one of them, up to the output projection. weights: parameters (D, ...)."""

    def __init__(self, x: Tensor, z: Tensor, weights: Direction, which: slice) -> None:
        self.x, self.z, self.weights, self.which = x, z, weights, which
        self.is_second = which.start == 1  # it starts from the last token and adds to what the first one wrote
        taps, bias = weights.conv_weight, weights.conv_bias
        self.conv = ConvCall(x, taps, bias, True, reverse=self.is_second, accumulate=self.is_second)

    def sequence(self, name: str) -> Tensor:
        """(D, B, L, I) until the next call with this name."""
        return scratch(name, (len(self.weights.A), *self.x.shape), self.x.dtype)

    def convolve(self) -> Tensor:
        u = self.sequence("u")
        self.conv.forward(u)
        return u

    def project(self, u: Tensor, projected: Tensor) -> None:
        """Fill `projected` (D, B, L, P)."""
        torch.bmm(u.flatten(1, 2), self.weights.x_proj.mT, out=projected.flatten(1, 2))

    def scan(self, u: Tensor, projected: Tensor) -> tuple[ScanCall, Tensor, Tensor]:
        """What is left to do; the step sizes (D, B, L, I) that it reads; and dt (D, B * L, R), from which they come."""
        delta, (dt, B, C) = self.sequence("delta"), self.weights.parts(projected)
        dt = dt.flatten(1, 2)
        torch.bmm(dt, self.weights.dt_proj.mT, out=delta.flatten(1, 2))
        of_channels = self.weights.D, self.z, self.weights.dt_bias
        call = ScanCall(u, delta, self.weights.A, B.unsqueeze(2), C.unsqueeze(2), *of_channels, softplus=True,
                        reverse=self.is_second, accumulate=self.is_second, factor=0.5)  # fmt: skip
        return call, delta, dt

    def backward(self, dy: Tensor, y: Tensor, dx: Tensor, dz: Tensor, kept: Sequence[Tensor] | None) -> Direction:
        """Fill y, dx and dz, or add to them; the gradients of `weights` are returned."""
        u = self.convolve()
        if kept:
            projected, states = (x[self.which] for x in kept)
            scan, delta, dt = self.scan(u, projected)
        else:
            projected = scratch("projected", (*u.shape[:3], self.weights.x_proj.shape[1]), u.dtype)
            self.project(u, projected)
            scan, delta, dt = self.scan(u, projected)
            states = scratch("states", scan.states_shape(keep=True), torch.float32)
            scan.forward(None, states)
        du, d_projected = self.sequence("du"), scratch("d_projected", projected.shape, u.dtype)
        d_dt, dB, dC = self.weights.parts(d_projected)
        ddelta = delta  # of which the kernel makes its gradient
        dA, dD, d_dt_bias = scan.backward(dy, states, du, ddelta, dz, dB.unsqueeze(2), dC.unsqueeze(2), y)
        u_rows, du_rows, ddelta_rows, d_rows = (x.flatten(1, 2) for x in (u, du, ddelta, d_projected))
        torch.bmm(ddelta_rows, self.weights.dt_proj, out=d_dt.flatten(1, 2))
        d_x_proj, d_dt_proj = torch.bmm(d_rows.mT, u_rows), torch.bmm(ddelta_rows.mT, dt)
        du_rows.baddbmm_(d_rows, self.weights.x_proj)
        return Direction(*self.conv.backward(du, dx), d_x_proj, d_dt_proj, d_dt_bias, dA, dD)


def _parts(xz: Tensor, weights: Direction) -> Iterator[_Part]:
    x, z = xz.chunk(2, dim=-1)
    if x.numel() * x.element_size() <= TOGETHER:
        yield _Part(x, z, weights, slice(0, 2))
        return
    for which in slice(0, 1), slice(1, 2):
        yield _Part(x, z, Direction(*(w[which] for w in weights)), which)


def mix(xz: Tensor, weights: Direction, out_weight: Tensor, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 2I) contiguous -> (B, L, E), then what `mix_backward` needs, of both directions: the projections
    (2, B, L, P) and, empty without `keep`, the scan's states. weights, out_weight: as from `stacked`."""
    projected, states = _kept(xz, weights, keep)
    y = scratch("y", (*xz.shape[:2], xz.shape[2] // 2), xz.dtype)
    for part in _parts(xz, weights):
        u, here = part.convolve(), projected[part.which]
        part.project(u, here)
        part.scan(u, here)[0].forward(y, states[part.which])
    return F.linear(y, out_weight), projected, states


def _kept(xz: Tensor, weights: Direction, keep: bool) -> tuple[Tensor, Tensor]:
    (batch, length, width), projections = xz.shape, weights.x_proj.shape[1]
    stored = stored_shape(batch, width // 2, length, weights.A.shape[2], 1, keep)
    return xz.new_empty(2, batch, length, projections), xz.new_empty(2, *stored, dtype=torch.float32)


def mix_backward(
    dout: Tensor, xz: Tensor, weights: Direction, out_weight: Tensor, kept: Sequence[Tensor] | None, dxz: Tensor
) -> tuple[Tensor, ...]:
    """Fill `dxz`, the gradient of xz; those of weights and out_weight are returned. kept: what `mix` kept; None: it is
    computed again, so that the states of all blocks never stand in memory at the same time."""
    dout = dout.to(xz.dtype).contiguous().flatten(0, 1)
    dx, dz = dxz.chunk(2, dim=-1)
    dy, y = (scratch(name, dx.shape, xz.dtype) for name in ("dy", "y"))
    torch.mm(dout, out_weight, out=dy.flatten(0, 1))
    made = [part.backward(dy, y, dx, dz, kept) for part in _parts(xz, weights)]
    grads = made[0] if len(made) == 1 else map(torch.cat, zip(*made))
    return *(grad.to(w.dtype) for grad, w in zip(grads, weights)), torch.mm(dout.t(), y.flatten(0, 1))


@torch.autocast("cpu", enabled=False)  # the operands already are in the precision wanted
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
    ctx.set_materialize_grads(False)  # or zeros as large as the states would be made for nothing


def _differentiate(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    return (*torch.ops.mamba_mae.bimamba_backward(dout, *ctx.saved_tensors), None)


_INPUTS = f"Tensor xz, {WEIGHTS}"
_GRADIENTS = ", ".join(["Tensor"] * _INPUTS.count("Tensor"))
register(f"bimamba({_INPUTS}, bool keep) -> (Tensor, Tensor, Tensor)", _bimamba, _bimamba_shapes)
register(
    f"bimamba_backward(Tensor dout, {_INPUTS}, Tensor projected, Tensor states) -> ({_GRADIENTS})",
    _bimamba_backward,
    _bimamba_backward_shapes,
)
differentiate("bimamba", _differentiate, _save)
