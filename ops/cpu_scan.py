"""torch.ops.mamba_mae.scan: the fused selective scan of ops/csrc and its gradient.

The forward pass keeps the state before every 16th step (as much memory as one float32 sequence at 16 states); the
backward pass starts from there. Results do not change between calls with the same number of threads.
Glossary as in ops/views.py; K blocks of channels, each one register ("lanes") wide.
"""

import functools
from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops import cpu_library
from ops.checks import scan_groups
from ops.cpu_library import MAX_SPLITS, Matrix, Scan, Sequence, columns, io_dtype, pointer, rows
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


class _Call:
    """One call's arguments in the layouts of the kernel, kept alive while it runs."""

    def __init__(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool):  # fmt: skip
        self.library = cpu_library.library()
        self.dtype = io_dtype(u, delta, z)
        self.batch, self.dim, self.length = u.shape
        self.states, self.groups = A.shape[1], scan_groups(B, C)
        threads = torch.get_num_threads()
        self.splits = max(1, min(MAX_SPLITS, self.dim, -(-threads // max(1, self.batch))))
        sequences = [None if x is None else rows(x.to(self.dtype)) for x in (u, delta, z)]
        matrices = columns(B), columns(C)
        channels = [None if x is None else x.float().contiguous() for x in (A, D, bias)]
        self._alive: list[Any] = [*sequences, *matrices, *channels]
        self.arguments = Scan(
            batch=self.batch, length=self.length, channels=self.dim, states=self.states, groups=self.groups,
            bfloat16_io=self.dtype == torch.bfloat16, softplus=softplus, reverse=reverse,
            threads=min(threads, max(1, self.batch * self.splits)), splits=self.splits,
            u=Sequence.of(sequences[0]), delta=Sequence.of(sequences[1]), z=Sequence.of(sequences[2]),
            A=pointer(channels[0]), D=pointer(channels[1]), bias=pointer(channels[2]),
            B=Matrix.of(matrices[0]), C=Matrix.of(matrices[1]),
        )  # fmt: skip

    def new_sequence(self, like: Tensor) -> Tensor:
        return like.new_empty(self.batch, self.length, self.dim, dtype=self.dtype)

    def is_empty(self) -> bool:
        return 0 in (self.batch, self.length, self.dim)


def _stored_shape(u: Tensor, A: Tensor, groups: int, keep: bool) -> tuple[int, ...]:
    """(chunks - 1, B, K, N, lanes), of which nothing is stored without `keep`."""
    kernels = cpu_library.library()
    lanes = kernels.scan_register_width()
    stored = max(0, -(-u.shape[2] // kernels.scan_chunk()) - 1) if keep else 0
    return stored, u.shape[0], groups * -(-u.shape[1] // groups // lanes), A.shape[1], lanes


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
          bias: Tensor | None, softplus: bool, reverse: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    call = _Call(u, delta, A, B, C, D, z, bias, softplus, reverse)
    out = call.new_sequence(u)
    last = u.new_zeros(call.batch, call.dim, call.states, dtype=torch.float32)
    states = u.new_empty(_stored_shape(u, A, call.groups, keep), dtype=torch.float32)
    call.arguments.out, call.arguments.last = Sequence.of(out), pointer(last)
    call.arguments.checkpoints = pointer(states) if len(states) else None
    if not call.is_empty():
        call.library.scan_forward(byref(call.arguments))
    return out.to(u.dtype).transpose(1, 2), last, states


def _scan_backward(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                   z: Tensor | None, bias: Tensor | None, states: Tensor, softplus: bool, reverse: bool
                   ) -> tuple[Tensor, ...]:  # fmt: skip
    call = _Call(u, delta, A, B, C, D, z, bias, softplus, reverse)
    du, ddelta, dz = call.new_sequence(u), call.new_sequence(u), None if z is None else call.new_sequence(u)
    zeros = functools.partial(u.new_zeros, dtype=torch.float32)
    dA, dD, dbias = zeros(call.batch, call.dim, call.states), zeros(call.batch, call.dim), zeros(call.batch, call.dim)
    dB = zeros(call.splits, call.batch, call.groups, call.length, call.states)
    dC = torch.zeros_like(dB)
    dout_rows = rows(dout.to(call.dtype))
    for name, x in (("dout", dout_rows), ("du", du), ("ddelta", ddelta), ("dz", dz)):
        setattr(call.arguments, name, Sequence.of(x))
    for name, x in (("dA", dA), ("dD", dD), ("dbias", dbias), ("dB", dB), ("dC", dC)):
        setattr(call.arguments, name, pointer(x))
    call.arguments.checkpoints = pointer(states) if len(states) else None
    if not call.is_empty():
        call.library.scan_backward(byref(call.arguments))
    return (
        du.to(u.dtype).transpose(1, 2),
        ddelta.to(delta.dtype).transpose(1, 2),
        dA.sum(0).to(A.dtype),
        dB.sum(0).transpose(2, 3).reshape(B.shape).to(B.dtype),
        dC.sum(0).transpose(2, 3).reshape(C.shape).to(C.dtype),
        u.new_empty(0) if D is None else dD.sum(0).to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype).transpose(1, 2),
        u.new_empty(0) if bias is None else dbias.sum(0).to(bias.dtype),
    )


def _scan_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool, keep: bool
                 ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    last = u.new_empty(u.shape[0], *A.shape, dtype=torch.float32)
    return empty_rows(u), last, u.new_empty(_stored_shape(u, A, scan_groups(B, C), keep), dtype=torch.float32)


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
