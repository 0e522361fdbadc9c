"""torch.ops.mamba_mae.triton_scan: one direction's scan, arguments as `ops.selective_scan_fn` takes them."""

from typing import Any

import torch
from torch import Tensor

from ops.arguments import scan_groups
from ops.operators import differentiate, empty_or_nothing, empty_rows, register
from ops.triton.host import DEVICE, dense, steps_per_segment
from ops.triton.scan import BACKWARD_CHANNELS, Scan, backward, blocks, forward


def _of(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
        bias: Tensor | None, softplus: bool, reverse: bool) -> Scan:  # fmt: skip
    def sequence(x: Tensor) -> Tensor:
        return dense(x.to(u.dtype).transpose(1, 2))

    def matrix(x: Tensor) -> Tensor:
        x = x if x.dim() == 4 else x[:, None]
        return dense(x.transpose(2, 3)).float()[None]  # once here, not in every thread that reads it

    D, bias = (None if x is None else x.float().contiguous()[None] for x in (D, bias))
    return Scan(sequence(u)[None], sequence(delta)[None], A.float().contiguous()[None], matrix(B), matrix(C), D,
                None if z is None else sequence(z), bias, softplus, reverse, 1.0)  # fmt: skip


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
          bias: Tensor | None, softplus: bool, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    out = u.new_empty(u.shape[0], u.shape[2], u.shape[1])
    starts, last = forward(_of(u, delta, A, B, C, D, z, bias, softplus, reverse), out)
    return out.transpose(1, 2), last[0].transpose(1, 2).contiguous(), starts[0]


def _scan_backward(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                   z: Tensor | None, bias: Tensor | None, starts: Tensor, softplus: bool, reverse: bool
                   ) -> tuple[Tensor, ...]:  # fmt: skip
    scan = _of(u, delta, A, B, C, D, z, bias, softplus, reverse)
    dz = None if z is None else torch.empty_like(scan.u[0], memory_format=torch.contiguous_format)
    made = backward(scan, dense(dout.to(u.dtype).transpose(1, 2)), starts[None], dz)
    dB, dC = made.dBC[0].transpose(2, 3).split(A.shape[1], 2)
    return (
        made.du[0].transpose(1, 2),
        made.ddelta[0].to(delta.dtype).transpose(1, 2),
        made.dA[0].to(A.dtype).contiguous(),
        dB.reshape(B.shape).to(B.dtype).contiguous(),
        dC.reshape(C.shape).to(C.dtype).contiguous(),
        u.new_empty(0) if D is None else made.dD[0].to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype).transpose(1, 2),
        u.new_empty(0) if bias is None else made.dbias[0].to(bias.dtype),
    )


def _scan_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None,
                 bias: Tensor | None, softplus: bool, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    batch, channels, length = u.shape
    groups = scan_groups(B, C)
    steps = steps_per_segment(length, blocks(channels, groups, BACKWARD_CHANNELS) * batch, u.device)
    borders = u.new_empty(batch, -(-length // steps), A.shape[1], channels, dtype=torch.float32)
    return empty_rows(u), u.new_empty(batch, *A.shape, dtype=torch.float32), borders


def _scan_backward_shapes(dout: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
                          z: Tensor | None, bias: Tensor | None, starts: Tensor, softplus: bool, reverse: bool
                          ) -> tuple[Tensor, ...]:  # fmt: skip
    dz = u.new_empty(0) if z is None else empty_rows(z)
    whole = (x.new_empty(x.shape) for x in (A, B, C))
    return empty_rows(u), empty_rows(delta), *whole, empty_or_nothing(D, u), dz, empty_or_nothing(bias, u)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse = inputs
    _, last, starts = output
    ctx.save_for_backward(*tensors, starts)
    ctx.mark_non_differentiable(last, starts)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.mamba_mae.triton_scan_backward(dout, *tensors, ctx.softplus, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None)


register(
    "triton_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias,"
    " bool softplus, bool reverse) -> (Tensor, Tensor, Tensor)",
    _scan,
    _scan_shapes,
    device=DEVICE,
)
register(
    "triton_scan_backward(Tensor dout, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z,"
    " Tensor? delta_bias, Tensor starts, bool softplus, bool reverse)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _scan_backward,
    _scan_backward_shapes,
    device=DEVICE,
)
differentiate("triton_scan", _differentiate, _save)
scan = torch.ops.mamba_mae.triton_scan
