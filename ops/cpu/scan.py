"""torch.ops.mamba_mae.scan: the fused selective scan of ops/cpu/csrc and its gradient.

The forward pass keeps the state before every 16th step (as much memory as one float32 sequence at 16 states); the
backward pass starts from there. Results do not change between calls with the same number of threads.
Glossary as in ops/chunked/views.py; K blocks of channels, each one register ("lanes") wide.
"""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops.arguments import scan_groups
from ops.cpu import library as cpu_library
from ops.cpu.library import Matrix, Scan, Sequence, columns, io_dtype, pointer, rows, shares
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


class ScanCall:
    """Arguments of one direction's scan, or of two over the same tokens, in the layouts of the kernel, kept alive while
    it runs. The first direction starts from the last token if `reverse`, the second from the other end.

    u and delta are (D, B, L, I); B and C (D, B, G, L, N), float32 or bfloat16; A is (D, I, N), D and bias (D, I). z and
    the result (B, L, I) belong to all directions, which add up, with `accumulate` to what is there. Channels and states
    are neighbours in memory; sequences have one precision. factor: of the result.
    """

    def __init__(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool, accumulate: bool = False, factor: float = 1.0
                 ) -> None:  # fmt: skip
        self.library = cpu_library.library()
        self.dtype = u.dtype
        self.directions, self.batch, self.length, self.dim = u.shape
        self.states, self.groups = A.shape[2], B.shape[2]
        channels = [None if x is None else x.float().contiguous() for x in (A, D, bias)]
        self._alive = u, delta, z, B, C, channels
        self.arguments = Scan(
            directions=self.directions, batch=self.batch, length=self.length, channels=self.dim, states=self.states,
            groups=self.groups, bfloat16_io=self.dtype == torch.bfloat16, bfloat16_states=B.dtype == torch.bfloat16,
            softplus=softplus, reverse=reverse, accumulate=accumulate, factor=factor,
            u=Sequence.of(u), delta=Sequence.of(delta), z=Sequence.of(z),
            A=pointer(channels[0]), D=pointer(channels[1]), bias=pointer(channels[2]),
            B=Matrix.of(B), C=Matrix.of(C), **shares(self.batch, channel_blocks(self.dim, self.groups)),
        )  # fmt: skip

    @classmethod
    def of(cls, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
           bias: Tensor | None, softplus: bool, reverse: bool) -> "ScanCall":  # fmt: skip
        """A call on arguments as `ops.selective_scan_fn` takes them: of one direction."""
        dtype = io_dtype(u, delta, z)
        u, delta, B, C = rows(u.to(dtype))[None], rows(delta.to(dtype))[None], columns(B)[None], columns(C)[None]
        D, bias = (None if x is None else x[None] for x in (D, bias))
        z = None if z is None else rows(z.to(dtype))
        return cls(u, delta, A[None], B, C, D, z, bias, softplus, reverse)

    def forward(self, out: Tensor | None, states: Tensor, last: Tensor | None = None) -> None:
        """Fill `out` if it is wanted, `states`, of a `states_shape`, and `last`, the state after the last step
        (D, B, I, N) in float32."""
        self.arguments.out, self.arguments.last = Sequence.of(out), pointer(last)
        self.arguments.checkpoints = pointer(states) if states.numel() else None
        if not self.is_empty():
            self.library.scan_forward(byref(self.arguments))

    def backward(self, dout: Tensor, states: Tensor, du: Tensor, ddelta: Tensor, dz: Tensor | None, dB: Tensor,
                 dC: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Fill du, ddelta (u's and delta's memory will do), dz, dB, dC and, if wanted again, out, in the shapes of
        their arguments; the float32 gradients of A (D, I, N), D and bias (D, I) are returned."""
        each = self.directions, self.batch, self.dim
        dA, dD, dbias = (torch.zeros(*each, *more, dtype=torch.float32) for more in ((self.states,), (), ()))
        for name, x in (("dout", dout), ("du", du), ("ddelta", ddelta), ("dz", dz), ("out", out)):
            setattr(self.arguments, name, Sequence.of(x))
        for name, x in (("dA", dA), ("dD", dD), ("dbias", dbias)):
            setattr(self.arguments, name, pointer(x))
        self.arguments.dB, self.arguments.dC = Matrix.of(dB), Matrix.of(dC)
        self.arguments.checkpoints = pointer(states)
        if self.is_empty():
            dB.zero_()
            dC.zero_()
        else:
            self.library.scan_backward(byref(self.arguments))
        dA, dD, dbias = (x[:, 0] if self.batch == 1 else x.sum(1) for x in (dA, dD, dbias))
        return dA, dD, dbias

    def states_shape(self, keep: bool) -> tuple[int, ...]:
        one = stored_shape(self.batch, self.dim, self.length, self.states, self.groups, keep)
        return self.directions, *one

    def new_sequence(self, like: Tensor) -> Tensor:
        return like.new_empty(self.batch, self.length, self.dim, dtype=self.dtype)

    def is_empty(self) -> bool:
        return 0 in (self.batch, self.length, self.dim)


def stored_shape(batch: int, dim: int, length: int, states: int, groups: int, keep: bool) -> tuple[int, ...]:
    """(chunks - 1, B, K, N, lanes) of the states before each chunk but the first; of none without `keep`."""
    kernels = cpu_library.library()
    stored = max(0, -(-length // kernels.scan_chunk()) - 1) if keep else 0
    return stored, batch, channel_blocks(dim, groups), states, kernels.scan_register_width()


def channel_blocks(dim: int, groups: int) -> int:
    """Registers that all channels take, of which none crosses a group."""
    return groups * -(-dim // groups // cpu_library.library().scan_register_width())


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
          bias: Tensor | None, softplus: bool, reverse: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    call = ScanCall.of(u, delta, A, B, C, D, z, bias, softplus, reverse)
    out, last = call.new_sequence(u), torch.zeros(u.shape[0], *A.shape, dtype=torch.float32)
    states = torch.empty(call.states_shape(keep)[1:], dtype=torch.float32)
    call.forward(out, states, last)
    return out.to(u.dtype).transpose(1, 2), last, states


def _scan_backward(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                   z: Tensor | None, bias: Tensor | None, states: Tensor, softplus: bool, reverse: bool
                   ) -> tuple[Tensor, ...]:  # fmt: skip
    call = ScanCall.of(u, delta, A, B, C, D, z, bias, softplus, reverse)
    du, ddelta, dz = call.new_sequence(u), call.new_sequence(u), None if z is None else call.new_sequence(u)
    dB, dC = (u.new_empty(u.shape[0], call.groups, u.shape[2], call.states, dtype=torch.float32) for _ in "BC")
    made = du[None], ddelta[None], dz, dB[None], dC[None]
    dA, dD, dbias = (x[0] for x in call.backward(rows(dout.to(call.dtype)), states, *made))
    return (
        du.to(u.dtype).transpose(1, 2),
        ddelta.to(delta.dtype).transpose(1, 2),
        dA.to(A.dtype),
        dB.transpose(2, 3).reshape(B.shape).to(B.dtype),
        dC.transpose(2, 3).reshape(C.shape).to(C.dtype),
        u.new_empty(0) if D is None else dD.to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype).transpose(1, 2),
        u.new_empty(0) if bias is None else dbias.to(bias.dtype),
    )


def _scan_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool, keep: bool
                 ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    last = u.new_empty(u.shape[0], *A.shape, dtype=torch.float32)
    batch, dim, length = u.shape
    stored = stored_shape(batch, dim, length, A.shape[1], scan_groups(B, C), keep)
    return empty_rows(u), last, u.new_empty(stored, dtype=torch.float32)


def _scan_backward_shapes(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                          z: Tensor | None, bias: Tensor | None, states: Tensor, softplus: bool, reverse: bool
                          ) -> tuple[Tensor, ...]:  # fmt: skip
    def columns_like(x: Tensor) -> Tensor:
        return x.new_empty((*x.shape[:-2], x.shape[-1], x.shape[-2])).transpose(-1, -2)

    dz = u.new_empty(0) if z is None else empty_rows(z)
    dD, dbias = empty_or_nothing(D, u), empty_or_nothing(bias, u)
    return empty_rows(u), empty_rows(delta), A.new_empty(A.shape), columns_like(B), columns_like(C), dD, dz, dbias


def _save_scan(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    _, last, states = output
    ctx.save_for_backward(*tensors, states)
    ctx.mark_non_differentiable(last, states)
    ctx.set_materialize_grads(False)  # or zeros as large as the states would be made for nothing


def _differentiate_scan(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.mamba_mae.scan_backward(dout, *tensors, ctx.softplus, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None, None)


register(
    "scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias,"
    " bool softplus, bool reverse, bool keep) -> (Tensor, Tensor, Tensor)",
    _scan,
    _scan_shapes,
)
register(
    "scan_backward(Tensor dout, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z,"
    " Tensor? delta_bias, Tensor states, bool softplus, bool reverse)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _scan_backward,
    _scan_backward_shapes,
)
differentiate("scan", _differentiate_scan, _save_scan)
scan = torch.ops.mamba_mae.scan
