"""torch.ops.mamba_mae.scan: the fused selective scan of ops/csrc/scan.cpp and its gradient.

The forward pass keeps the state before every 16th step (as much memory as one float32 sequence at 16 states); the
backward pass starts from there. Results do not change between calls with the same number of threads.
Glossary as in ops/views.py; K blocks of channels, each one register ("lanes") wide.
"""

import functools
from collections.abc import Sequence as Seq
from ctypes import byref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops import cpu_library
from ops.checks import scan_groups
from ops.cpu_library import MAX_SPLITS, Matrix, Scan, Sequence, columns, io_dtype, pointer, rows
from ops.operators import differentiate, empty_or_nothing, empty_rows, register

LOG2_E = 1.4426950408889634


class _ScanCall:
    """One call's tensors in the layouts of the kernel, kept alive while it runs."""

    def __init__(self, tensors: Seq[Any], softplus: bool, reverse: bool):
        u, delta, A, B, C, D, z, bias = tensors
        self.library = cpu_library.library()
        self.dtype = io_dtype(u, delta, z)
        self.batch, self.dim, self.length = u.shape
        self.states, self.groups = A.shape[1], scan_groups(B, C)
        register = self.library.scan_register_width()
        self.blocks = self.groups * -(-self.dim // self.groups // register)
        self.block_shape = (self.batch, self.blocks, self.states, register)
        threads = torch.get_num_threads()
        self.splits = max(1, min(self.blocks, MAX_SPLITS, -(-threads // max(1, self.batch))))
        sequences = [None if x is None else rows(x.to(self.dtype)) for x in (u, delta, z)]
        matrices = [columns(B), columns(C)]
        channels = [None if x is None else self.blocked(x) for x in (D, bias)]
        decay = self.blocked(A * LOG2_E)
        self.u, self.delta, self.z = sequences
        self._alive = [*sequences, *matrices, *channels, decay]
        self.arguments = Scan(
            batch=self.batch, length=self.length, channels=self.dim, states=self.states, groups=self.groups,
            bfloat16_io=self.dtype == torch.bfloat16, softplus=softplus, reverse=reverse,
            threads=min(threads, max(1, self.batch * self.splits)), splits=self.splits,
            u=Sequence.of(self.u), delta=Sequence.of(self.delta), z=Sequence.of(self.z),
            A=pointer(decay), D=pointer(channels[0]), bias=pointer(channels[1]),
            B=Matrix.of(matrices[0]), C=Matrix.of(matrices[1]),
        )  # fmt: skip

    def new_sequence(self, like: Tensor) -> Tensor:
        return like.new_empty(self.batch, self.length, self.dim, dtype=self.dtype)

    def set(self, **fields: Tensor | None) -> None:
        for name, x in fields.items():
            is_sequence = name in ("out", "dout", "du", "ddelta", "dz")
            setattr(self.arguments, name, Sequence.of(x) if is_sequence else pointer(x))

    def blocked(self, x: Tensor) -> Tensor:
        """(I, ...) -> (K, ..., lanes) float32, idle lanes zero; the inverse of per_channel."""
        lanes = self.block_shape[-1]
        grouped = x.float().unflatten(0, (self.groups, self.dim // self.groups))
        padding = self.blocks // self.groups * lanes - self.dim // self.groups
        padded = F.pad(grouped.movedim(1, -1), (0, padding))
        return padded.unflatten(-1, (-1, lanes)).movedim(-2, 1).flatten(0, 1).contiguous()

    def per_channel(self, blocked: Tensor) -> Tensor:
        """(B, K, ..., lanes) -> (B, I, ...) without the idle lanes of each group's last block."""
        moved = blocked.movedim(-1, 2).unflatten(1, (self.groups, self.blocks // self.groups)).flatten(2, 3)
        return moved[:, :, : self.dim // self.groups].flatten(1, 2).contiguous()

    def is_empty(self) -> bool:
        return 0 in (self.batch, self.length, self.dim)


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
          bias: Tensor | None, softplus: bool, reverse: bool, keep: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    call = _ScanCall((u, delta, A, B, C, D, z, bias), softplus, reverse)
    stored = -(-call.length // call.library.scan_chunk()) - 1 if keep else 0
    out = call.new_sequence(u)
    last = u.new_zeros(call.block_shape, dtype=torch.float32)
    states = u.new_empty(max(0, stored), *call.block_shape, dtype=torch.float32)
    call.set(out=out, last=last, checkpoints=states if keep and stored > 0 else None)
    if call.is_empty():
        out.zero_()
    else:
        call.library.scan_forward(byref(call.arguments))
    return out.to(u.dtype).transpose(1, 2), call.per_channel(last), states


def _scan_backward(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                   z: Tensor | None, bias: Tensor | None, states: Tensor, softplus: bool, reverse: bool
                   ) -> tuple[Tensor, ...]:  # fmt: skip
    call = _ScanCall((u, delta, A, B, C, D, z, bias), softplus, reverse)
    du, ddelta, dz = call.new_sequence(u), call.new_sequence(u), None if z is None else call.new_sequence(u)
    zeros = functools.partial(u.new_zeros, dtype=torch.float32)
    dA, dD = zeros(call.block_shape), zeros(call.block_shape[:2] + call.block_shape[3:])
    dbias = torch.zeros_like(dD)
    dB = zeros(call.splits, call.batch, call.groups, call.length, call.states)
    dC = torch.zeros_like(dB)
    dout_rows = rows(dout.to(call.dtype))
    call.set(dout=dout_rows, du=du, ddelta=ddelta, dz=dz, dA=dA, dD=dD, dbias=dbias, dB=dB, dC=dC)
    call.set(checkpoints=states if states.numel() else None)
    if not call.is_empty():
        call.library.scan_backward(byref(call.arguments))
    return (
        du.to(u.dtype).transpose(1, 2),
        ddelta.to(delta.dtype).transpose(1, 2),
        call.per_channel(dA).sum(0).to(A.dtype),
        dB.sum(0).transpose(2, 3).reshape(B.shape).to(B.dtype),
        dC.sum(0).transpose(2, 3).reshape(C.shape).to(C.dtype),
        u.new_empty(0) if D is None else call.per_channel(dD).sum(0).to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype).transpose(1, 2),
        u.new_empty(0) if bias is None else call.per_channel(dbias).sum(0).to(bias.dtype),
    )


def _scan_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool, keep: bool
                 ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, dim, length = u.shape
    kernels, groups = cpu_library.library(), scan_groups(B, C)
    register = kernels.scan_register_width()
    stored = max(0, -(-length // kernels.scan_chunk()) - 1) if keep else 0
    blocks = groups * -(-dim // groups // register)
    states = u.new_empty(stored, batch, blocks, A.shape[1], register, dtype=torch.float32)
    return empty_rows(u), u.new_empty(batch, dim, A.shape[1], dtype=torch.float32), states


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
