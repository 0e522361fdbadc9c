"""Selective scan in plain PyTorch that is fast on any device and never holds the state of the whole sequence.

Time is cut into chunks of at most MAX_STEPS positions. What does not depend on the previous state (the decays
exp(delta A) and the inputs delta B u) is computed for a whole chunk at once. The recurrence that is left is one fused
multiply-add per position. Only the state before each chunk is kept for the backward pass. The backward pass computes a
chunk's states again and runs the adjoint recurrence g_t = C_t dy_t + decay_{t+1} g_{t+1} from its far end. Decays are
exponentials of negative numbers, never quotients of products, so nothing overflows however large delta is.

Working tensors are (T, B, G, N, J) as in ops/chunked/views.py, channels innermost. The specification is
ops/reference/scan.py.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import SCAN_TENSORS, ScanInputs
from ops.chunked.views import StateMatrix, channel_last, from_per_channel, from_per_position, per_channel, per_position
from ops.operators import ANY_DEVICE, differentiate, empty_columns, empty_or_nothing, empty_rows, register
from ops.precision import below_autocast, compute_dtype

MAX_STEPS = 64
BLOCK_ELEMENTS = 1 << 20  # state elements worked on at once; up to four such buffers are alive: 16 MiB in float32
LOG2_E = math.log2(math.e)  # exp2 is several times faster than exp among PyTorch's CPU kernels


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn` by chunks; differentiable once."""
    out, last, _ = torch.ops.mamba_mae.chunked_scan(*inputs, False)
    return out, last


class _Views(NamedTuple):
    """The arguments as views that broadcast against the state."""

    u: Tensor  # (L, B, G, 1, J), as delta and z
    delta: Tensor
    A: Tensor  # (1, 1, G, N, J)
    B: StateMatrix
    C: StateMatrix
    D: Tensor | None  # (1, 1, G, 1, J), as bias
    z: Tensor | None
    bias: Tensor | None
    softplus: bool
    dtype: torch.dtype  # of the state

    @classmethod
    def of(cls, inputs: ScanInputs) -> "_Views":
        u, delta, A, B, C, D, z, bias, softplus, _ = inputs
        groups, dtype = inputs.groups(), compute_dtype(u)
        D, bias = (None if x is None else per_channel(x[:, None].to(dtype), groups) for x in (D, bias))
        return cls(
            u=per_position(u, groups),
            delta=per_position(delta, groups),
            A=per_channel(A.to(dtype), groups).contiguous(),
            B=StateMatrix.of(B, groups),
            C=StateMatrix.of(C, groups),
            D=D,
            z=None if z is None else per_position(z, groups),
            bias=bias,
            softplus=softplus,
            dtype=dtype,
        )

    def chunk(self, time: slice, batch: slice) -> "_Views":
        """One chunk in the precision of the state, the bias added to delta, without softplus."""
        delta = self.delta[time, batch].to(self.dtype)
        return self._replace(
            u=self.u[time, batch].to(self.dtype),
            delta=delta if self.bias is None else delta + self.bias,
            B=self.B.chunk(time, batch, self.dtype),
            C=self.C.chunk(time, batch, self.dtype),
            z=None if self.z is None else self.z[time, batch].to(self.dtype),
        )

    def step_size(self) -> Tensor:
        """The final delta_t of a chunk."""
        return F.softplus(self.delta) if self.softplus else self.delta


def _steps(length: int, per_step: int) -> int:
    """Positions of a chunk if a state has `per_step` elements."""
    return min(max(1, BLOCK_ELEMENTS // max(1, per_step)), MAX_STEPS, max(1, length))


class _Walk:
    """The order of the chunks and of the steps inside them, and the buffers that all chunks share."""

    def __init__(self, views: _Views, reverse: bool, buffers: int):
        self.length, self.batch, groups, _, width = views.u.shape
        self.state = (groups, views.A.shape[3], width)
        per_step = max(1, math.prod(self.state))
        self.steps = _steps(self.length, per_step)
        self.items = max(1, min(BLOCK_ELEMENTS // (per_step * self.steps), self.batch))
        self.reverse = reverse
        self.chunks = math.ceil(self.length / self.steps)
        self._buffers = views.A.new_empty(buffers, self.steps * self.items * per_step)

    def batches(self) -> Iterator[slice]:
        return (slice(at, min(at + self.items, self.batch)) for at in range(0, self.batch, self.items))

    def times(self) -> Iterator[tuple[int, slice]]:
        """(chunk index, positions) in the order of the scan."""
        for index in reversed(range(self.chunks)) if self.reverse else range(self.chunks):
            yield index, slice(index * self.steps, min((index + 1) * self.steps, self.length))

    def buffers(self, time: slice, batch: slice) -> list[Tensor]:
        """The shared buffers shaped (T, B, G, N, J) for one chunk."""
        shape = (time.stop - time.start, batch.stop - batch.start, *self.state)
        return [buffer[: math.prod(shape)].view(shape) for buffer in self._buffers]

    def in_order(self, x: Tensor) -> list[Tensor]:
        """x[t] for every step t of a chunk, in the order of the scan."""
        return list(x.unbind(0))[:: -1 if self.reverse else 1]


def _states(
    walk: _Walk, log2_decay: Tensor, chunk: _Views, dt: Tensor, start: Tensor, decay: Tensor, h: Tensor
) -> Tensor:
    """Fill `decay` and `h` of one chunk, (T, B, G, N, J), from the state before it. Returns the state after it."""
    torch.mul(dt, log2_decay, out=decay).exp2_()
    torch.mul(dt * chunk.u, chunk.B.value, out=h)
    state = start
    for decay_t, h_t in zip(walk.in_order(decay), walk.in_order(h)):
        state = h_t.addcmul_(decay_t, state)
    return state


def _forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """out (B, I, L), last state (B, I, N), and with `keep` the states before each chunk (chunks, B, G, N, J)."""
    *given, keep = arguments
    inputs = ScanInputs(*given)
    views = _Views.of(inputs)
    walk = _Walk(views, inputs.reverse, buffers=2)
    log2_decay = views.A * LOG2_E
    out = channel_last(walk.batch, walk.length, walk.state[0], walk.state[2], views.u, views.u.dtype)
    last = views.A.new_zeros(walk.batch, *walk.state)
    starts = views.A.new_empty(walk.chunks if keep else 0, walk.batch, *walk.state)
    for batch in walk.batches():
        for index, time in walk.times():
            if keep:
                starts[index, batch] = last[batch]
            chunk = views.chunk(time, batch)
            decay, h = walk.buffers(time, batch)
            last[batch] = _states(walk, log2_decay, chunk, chunk.step_size(), last[batch], decay, h)
            y = chunk.C.read(h)
            if chunk.D is not None:
                y.addcmul_(chunk.D, chunk.u)
            out[time, batch] = y if chunk.z is None else y.mul_(F.silu(chunk.z))
    return from_per_position(out), last.transpose(2, 3).flatten(1, 2).contiguous(), starts


def _backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias."""
    *tensors, starts, softplus, reverse = arguments
    inputs = ScanInputs(*tensors, delta_softplus=softplus, reverse=reverse)
    views = _Views.of(inputs)
    walk = _Walk(views, reverse, buffers=3)
    groups = walk.state[0]
    dout = per_position(grad, groups)
    log2_decay = views.A * LOG2_E

    def empty(x: Tensor) -> Tensor:
        return channel_last(walk.batch, walk.length, groups, walk.state[2], x, x.dtype)

    du, ddelta, dz = empty(views.u), empty(views.delta), None if views.z is None else empty(views.z)
    dA, dB, dC = torch.zeros_like(views.A), views.B.new_gradient(views.dtype), views.C.new_gradient(views.dtype)
    dD, dbias = (None if x is None else torch.zeros_like(x) for x in (views.D, views.bias))
    carries = views.A.new_zeros(walk.batch, *walk.state)  # decay * adjoint of the step after the chunk
    for batch in walk.batches():
        for index, time in reversed(list(walk.times())):
            chunk = views.chunk(time, batch)
            decay, h, g = walk.buffers(time, batch)
            dt, start = chunk.step_size(), starts[index, batch]
            _states(walk, log2_decay, chunk, dt, start, decay, h)

            dy = dout[time, batch].to(views.dtype)
            if chunk.z is not None and dz is not None:
                y = chunk.C.read(h)
                if chunk.D is not None:
                    y.addcmul_(chunk.D, chunk.u)
                sigmoid = chunk.z.sigmoid()
                gate = chunk.z * sigmoid
                dz[time, batch] = dy * y * (sigmoid + gate * (1 - sigmoid))
                dy = dy * gate

            # adjoint states: g_t = C_t dy_t + decay_{t+1} g_{t+1}
            torch.mul(dy, chunk.C.value, out=g)
            g_order, decay_order = walk.in_order(g), walk.in_order(decay)
            g_order[-1].add_(carries[batch])
            for at in range(len(g_order) - 2, -1, -1):
                g_order[at].addcmul_(decay_order[at + 1], g_order[at + 1])

            chunk.C.add_gradient(dC, time, batch, dy, h)
            chunk.B.add_gradient(dB, time, batch, dt * chunk.u, g)
            d_dtu = chunk.B.read(g)
            # the gradient of the exponent, g_t decay_t h_{t-1}, overwrites the decays
            decay.mul_(g)
            carries[batch] = decay_order[0]
            decay_order[0].mul_(start)
            (decay[:-1] if reverse else decay[1:]).mul_(h[1:] if reverse else h[:-1])
            ddt = torch.mul(decay, chunk.A, out=g).sum(-2, keepdim=True)
            dA += torch.mul(decay, dt, out=g).sum((0, 1))

            ddt.addcmul_(d_dtu, chunk.u)
            d_u = d_dtu.mul_(dt)
            if chunk.D is not None and dD is not None:
                d_u.addcmul_(chunk.D, dy)
                dD += (dy * chunk.u).sum((0, 1))
            if chunk.softplus:
                ddt = torch.ops.aten.softplus_backward(ddt, chunk.delta, 1, 20)  # F.softplus's beta and threshold
            if dbias is not None:
                dbias += ddt.sum((0, 1))
            du[time, batch], ddelta[time, batch] = d_u, ddt

    du, ddelta, dz = (None if x is None else from_per_position(x) for x in (du, ddelta, dz))
    dD, dbias = (None if x is None else from_per_channel(x).flatten() for x in (dD, dbias))
    dB, dC = views.B.from_gradient(dB, inputs.B.shape), views.C.from_gradient(dC, inputs.C.shape)
    gradients = du, ddelta, from_per_channel(dA).contiguous(), dB, dC, dD, dz, dbias
    return tuple(grad.new_empty(0) if x is None else x.to(t.dtype) for x, t in zip(gradients, tensors))


def _forward_shapes(*arguments: Any) -> tuple[Tensor, ...]:
    *given, keep = arguments
    inputs = ScanInputs(*given)
    u, (batch, dim, length), states, groups = inputs.u, inputs.u.shape, inputs.A.shape[1], inputs.groups()
    chunks = -(-length // _steps(length, dim * states)) if keep else 0
    dtype = compute_dtype(u)
    last = u.new_empty(batch, dim, states, dtype=dtype)
    return empty_rows(u), last, u.new_empty(chunks, batch, groups, states, dim // groups, dtype=dtype)


def _backward_shapes(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    u, delta, A, B, C, D, z, bias, *_ = arguments
    dB, dC = (x.new_empty(x.shape) if x.dim() == 2 else empty_columns(x) for x in (B, C))
    dD, dbias = (empty_or_nothing(x, grad) for x in (D, bias))
    dz = grad.new_empty(0) if z is None else empty_rows(z)
    return empty_rows(u), empty_rows(delta), A.new_empty(A.shape), dB, dC, dD, dz, dbias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    _, last, starts = output
    ctx.save_for_backward(*tensors, starts)
    ctx.mark_non_differentiable(last, starts)
    ctx.set_materialize_grads(False)  # otherwise PyTorch makes zeros as large as the states


def _gradients(ctx: Any, grad: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = torch.ops.mamba_mae.chunked_scan_backward(grad, *tensors, ctx.softplus, ctx.reverse)
    return (*(None if x is None else gradient for x, gradient in zip(tensors, gradients)), None, None, None)


register(
    f"chunked_scan({SCAN_TENSORS}, bool softplus, bool reverse, bool keep) -> (Tensor, Tensor, Tensor)",
    below_autocast(_forward),
    _forward_shapes,
    device=ANY_DEVICE,
)
register(
    f"chunked_scan_backward(Tensor grad, {SCAN_TENSORS}, Tensor starts, bool softplus, bool reverse)"
    f" -> ({', '.join(['Tensor'] * 8)})",
    below_autocast(_backward),
    _backward_shapes,
    device=ANY_DEVICE,
)
differentiate("chunked_scan", _gradients, _save)
