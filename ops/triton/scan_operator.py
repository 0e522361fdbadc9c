"""torch.ops.mamba_mae.triton_scan: one direction's scan, with the arguments of `ops.selective_scan_fn`."""

from typing import Any

import torch
from torch import Tensor

from ops.arguments import SCAN_TENSORS, ScanInputs
from ops.operators import differentiate, empty_or_nothing, empty_rows, register
from ops.triton.host import DEVICE, dense, steps_per_segment
from ops.triton.scan import BACKWARD_CHANNELS, ScanArguments, backward, blocks, forward


def _kernel_arguments(inputs: ScanInputs) -> ScanArguments:
    u, delta, A, B, C, D, z, bias, softplus, reverse = inputs

    def sequence(x: Tensor) -> Tensor:
        return dense(x.to(u.dtype).transpose(1, 2))

    def matrix(x: Tensor) -> Tensor:
        x = x if x.dim() == 4 else x[:, None]
        return dense(x.transpose(2, 3)).float()[None]  # cast once, not in every thread that reads it

    D, bias = (None if x is None else x.float().contiguous()[None] for x in (D, bias))
    return ScanArguments(
        u=sequence(u)[None],
        delta=sequence(delta)[None],
        A=A.float().contiguous()[None],
        B=matrix(B),
        C=matrix(C),
        D=D,
        z=None if z is None else sequence(z),
        bias=bias,
        softplus=softplus,
        reverse=reverse,
        factor=1.0,
    )


def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = ScanInputs(*arguments)
    batch, channels, length = inputs.u.shape
    out = inputs.u.new_empty(batch, length, channels)
    starts, last = forward(_kernel_arguments(inputs), out)
    return out.transpose(1, 2), last[0].transpose(1, 2).contiguous(), starts[0]


def _scan_backward(dout: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, starts, softplus, reverse = arguments
    inputs = ScanInputs(*tensors, delta_softplus=softplus, reverse=reverse)
    u, delta, A, B, C, D, z, bias, _, _ = inputs
    scan = _kernel_arguments(inputs)
    dz = None if z is None else torch.empty_like(scan.u[0], memory_format=torch.contiguous_format)
    gradients = backward(scan, dense(dout.to(u.dtype).transpose(1, 2)), starts[None], dz)
    dB, dC = gradients.dBC[0].transpose(2, 3).split(A.shape[1], 2)
    return (
        gradients.du[0].transpose(1, 2),
        gradients.ddelta[0].to(delta.dtype).transpose(1, 2),
        gradients.dA[0].to(A.dtype).contiguous(),
        dB.reshape(B.shape).to(B.dtype).contiguous(),
        dC.reshape(C.shape).to(C.dtype).contiguous(),
        u.new_empty(0) if D is None else gradients.dD[0].to(D.dtype),
        u.new_empty(0) if z is None or dz is None else dz.to(z.dtype).transpose(1, 2),
        u.new_empty(0) if bias is None else gradients.dbias[0].to(bias.dtype),
    )


def _scan_shapes(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = ScanInputs(*arguments)
    u, (batch, channels, length), (_, states) = inputs.u, inputs.u.shape, inputs.A.shape
    steps = steps_per_segment(length, blocks(channels, inputs.groups(), BACKWARD_CHANNELS) * batch, u.device)
    borders = u.new_empty(batch, -(-length // steps), states, channels, dtype=torch.float32)
    return empty_rows(u), u.new_empty(batch, channels, states, dtype=torch.float32), borders


def _scan_backward_shapes(dout: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    u, delta, A, B, C, D, z, bias, *_ = arguments
    dz = u.new_empty(0) if z is None else empty_rows(z)
    whole = (x.new_empty(x.shape) for x in (A, B, C))
    return empty_rows(u), empty_rows(delta), *whole, empty_or_nothing(D, u), dz, empty_or_nothing(bias, u)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.softplus, ctx.reverse = inputs
    _, last, starts = output
    ctx.save_for_backward(*tensors, starts)
    ctx.mark_non_differentiable(last, starts)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dout: Tensor, *unused: Any) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.mamba_mae.triton_scan_backward(dout, *tensors, ctx.softplus, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None)


register(
    f"triton_scan({SCAN_TENSORS}, bool softplus, bool reverse) -> (Tensor, Tensor, Tensor)",
    _scan,
    _scan_shapes,
    device=DEVICE,
)
register(
    f"triton_scan_backward(Tensor dout, {SCAN_TENSORS}, Tensor starts, bool softplus, bool reverse)"
    f" -> ({', '.join(['Tensor'] * 8)})",
    _scan_backward,
    _scan_backward_shapes,
    device=DEVICE,
)
differentiate("triton_scan", _gradients, _save)
scan = torch.ops.mamba_mae.triton_scan
