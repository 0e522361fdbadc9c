"""torch.ops.mamba_mae.scan: the fused selective scan of ops/cpu/csrc and its gradient.

The forward pass keeps the state before every 16th step (as much memory as one float32 sequence at 16 states). The
backward pass starts from these states. Results do not change between calls with the same number of threads.
Shapes: D directions, B batch, L positions, I inner channels, N states, G groups, K blocks of channels, each as wide as
a register ("lanes").
"""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops.arguments import SCAN_TENSORS, ScanInputs
from ops.cpu import library as cpu_library
from ops.cpu.library import Matrix, Scan, Sequence, columns, io_dtype, pointer, rows, thread_split
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


class ScanCall:
    """One call of the scan kernel: its arguments in the kernel's layouts, which live as long as this object.

    The call scans one direction, or two over the same tokens. The first direction starts from the last token if
    `reverse`, the second from the other end. u and delta are (D, B, L, I); B and C (D, B, G, L, N), float32 or
    bfloat16; A is (D, I, N), D and bias (D, I). z and the result (B, L, I) are shared: the result is the sum over the
    directions times `factor`, added to the memory's content with `accumulate`. Channels and states lie side by side in
    memory. All sequences have one precision.
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
            B=Matrix.of(B), C=Matrix.of(C), **thread_split(self.batch, channel_blocks(self.dim, self.groups)),
        )  # fmt: skip

    @classmethod
    def of(cls, inputs: ScanInputs) -> "ScanCall":
        """The scan of one direction."""
        u, delta, A, B, C, D, z, bias, softplus, reverse = inputs
        dtype = io_dtype(u, delta, z)
        u, delta, B, C = rows(u.to(dtype))[None], rows(delta.to(dtype))[None], columns(B)[None], columns(C)[None]
        D, bias = (None if x is None else x[None] for x in (D, bias))
        z = None if z is None else rows(z.to(dtype))
        return cls(u, delta, A[None], B, C, D, z, bias, softplus, reverse)

    def forward(self, out: Tensor | None, states: Tensor, last: Tensor | None = None) -> None:
        """Fill `out`, `states` of a `states_shape`, and `last`, the float32 state after the last step (D, B, I, N).

        `out` and `last` may be None: they are not wanted."""
        self.arguments.out, self.arguments.last = Sequence.of(out), pointer(last)
        self.arguments.checkpoints = pointer(states) if states.numel() else None
        if not self.is_empty():
            self.library.scan_forward(byref(self.arguments))

    def backward(self, dout: Tensor, states: Tensor, du: Tensor, ddelta: Tensor, dz: Tensor | None, dB: Tensor,
                 dC: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Fill du, ddelta, dz, dB, dC and, if wanted again, out, in the shapes of their arguments. du and ddelta may be
        the memory of u and delta. Returns the float32 gradients of A (D, I, N), D and bias (D, I)."""
        shape = self.directions, self.batch, self.dim
        dA, dD, dbias = (torch.zeros(*shape, *more, dtype=torch.float32) for more in ((self.states,), (), ()))
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
        """The shape of the states that all directions keep."""
        return self.directions, *stored_shape(self.batch, self.dim, self.length, self.states, self.groups, keep)

    def new_sequence(self, like: Tensor) -> Tensor:
        return like.new_empty(self.batch, self.length, self.dim, dtype=self.dtype)

    def is_empty(self) -> bool:
        return 0 in (self.batch, self.length, self.dim)


def stored_shape(batch: int, dim: int, length: int, states: int, groups: int, keep: bool) -> tuple[int, ...]:
    """(chunks - 1, B, K, N, lanes): the states before each chunk but the first. No states without `keep`."""
    kernels = cpu_library.library()
    stored = max(0, -(-length // kernels.scan_chunk()) - 1) if keep else 0
    return stored, batch, channel_blocks(dim, groups), states, kernels.scan_register_width()


def channel_blocks(dim: int, groups: int) -> int:
    """The number of registers that hold all channels. No register holds channels of two groups."""
    return groups * -(-dim // groups // cpu_library.library().scan_register_width())


def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *given, keep = arguments
    inputs = ScanInputs(*given)
    u, call = inputs.u, ScanCall.of(inputs)
    out, last = call.new_sequence(u), torch.zeros(u.shape[0], *inputs.A.shape, dtype=torch.float32)
    states = torch.empty(call.states_shape(keep)[1:], dtype=torch.float32)
    call.forward(out, states, last)
    return out.to(u.dtype).transpose(1, 2), last, states


def _scan_backward(dout: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, states, softplus, reverse = arguments
    inputs = ScanInputs(*tensors, delta_softplus=softplus, reverse=reverse)
    u, delta, A, B, C, D, z, bias, _, _ = inputs
    call = ScanCall.of(inputs)
    du, ddelta, dz = call.new_sequence(u), call.new_sequence(u), None if z is None else call.new_sequence(u)
    dB, dC = (u.new_empty(u.shape[0], call.groups, u.shape[2], call.states, dtype=torch.float32) for _ in "BC")
    targets = du[None], ddelta[None], dz, dB[None], dC[None]
    dA, dD, dbias = (x[0] for x in call.backward(rows(dout.to(call.dtype)), states, *targets))
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


def _scan_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    *given, keep = arguments
    inputs = ScanInputs(*given)
    u, (batch, dim, length), (_, states) = inputs.u, inputs.u.shape, inputs.A.shape
    last = u.new_empty(batch, dim, states, dtype=torch.float32)
    stored = stored_shape(batch, dim, length, states, inputs.groups(), keep)
    return empty_rows(u), last, u.new_empty(stored, dtype=torch.float32)


def _scan_backward_shapes(dout: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    u, delta, A, B, C, D, z, bias, *_ = arguments

    def columns_like(x: Tensor) -> Tensor:
        return x.new_empty((*x.shape[:-2], x.shape[-1], x.shape[-2])).transpose(-1, -2)

    dz = u.new_empty(0) if z is None else empty_rows(z)
    dD, dbias = empty_or_nothing(D, u), empty_or_nothing(bias, u)
    return empty_rows(u), empty_rows(delta), A.new_empty(A.shape), columns_like(B), columns_like(C), dD, dz, dbias


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    _, last, states = output
    ctx.save_for_backward(*tensors, states)
    ctx.mark_non_differentiable(last, states)
    ctx.set_materialize_grads(False)  # otherwise PyTorch makes zeros as large as the states


def _gradients(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.mamba_mae.scan_backward(dout, *tensors, ctx.softplus, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None, None)


register(
    f"scan({SCAN_TENSORS}, bool softplus, bool reverse, bool keep) -> (Tensor, Tensor, Tensor)",
    _scan,
    _scan_shapes,
)
register(
    f"scan_backward(Tensor dout, {SCAN_TENSORS}, Tensor states, bool softplus, bool reverse)"
    f" -> ({', '.join(['Tensor'] * 8)})",
    _scan_backward,
    _scan_backward_shapes,
)
differentiate("scan", _gradients, _save)
scan = torch.ops.mamba_mae.scan
