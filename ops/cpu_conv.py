"""torch.ops.mamba_mae.conv: the fused causal convolution with SiLU of ops/csrc/conv.cpp and its gradient."""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops import cpu_library
from ops.cpu_library import MAX_SPLITS, Conv, Sequence, pointer, rows
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


def _conv_call(x_BLI: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> tuple[Conv, list[Any]]:
    """The kernel's arguments and the tensors that must live as long as they do."""
    batch, length, channels = x_BLI.shape
    threads = torch.get_num_threads()
    splits = max(1, min(MAX_SPLITS, -(-threads // max(1, batch))))
    taps, offset = weight.float().t().contiguous(), None if bias is None else bias.float().contiguous()
    arguments = Conv(
        batch=batch, length=length, channels=channels, width=weight.shape[1],
        bfloat16_io=x_BLI.dtype == torch.bfloat16, silu=silu, reverse=reverse,
        threads=min(threads, max(1, batch * splits)), splits=splits,
        x=Sequence.of(x_BLI), weight=pointer(taps), bias=pointer(offset),
    )  # fmt: skip
    return arguments, [x_BLI, taps, offset]


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    x_BLI = rows(x)
    out = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    arguments, _alive = _conv_call(x_BLI, weight, bias, silu, reverse)
    arguments.out = Sequence.of(out)
    if out.numel():
        cpu_library.library().conv_forward(byref(arguments))
    return out.transpose(1, 2)


def _conv_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                   ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    x_BLI, dout_BLI = rows(x), rows(dout.to(x.dtype))
    dx = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    arguments, _alive = _conv_call(x_BLI, weight, bias, silu, reverse)
    parts = max(1, x.shape[0]) * arguments.splits
    dweight = x.new_zeros(parts, weight.shape[1], weight.shape[0], dtype=torch.float32)
    dbias = x.new_zeros(parts, weight.shape[0], dtype=torch.float32)
    arguments.dout, arguments.dx = Sequence.of(dout_BLI), Sequence.of(dx)
    arguments.dweight, arguments.dbias = pointer(dweight), pointer(dbias)
    if dx.numel():
        cpu_library.library().conv_backward(byref(arguments))
    dbias = x.new_empty(0) if bias is None else dbias.sum(0).to(bias.dtype)
    return dx.transpose(1, 2), dweight.sum(0).t().to(weight.dtype).contiguous(), dbias


def _conv_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    return empty_rows(x)


def _conv_backward_shapes(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                          ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return empty_rows(x), weight.new_empty(weight.shape), empty_or_nothing(bias, x)


def _save_conv(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_conv(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # once: activation checkpointing hands them out only once
    grads = torch.ops.mamba_mae.conv_backward(dout, *tensors, ctx.silu, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None)


register("conv(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) -> Tensor", _conv, _conv_shapes)
register(
    "conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse)"
    " -> (Tensor, Tensor, Tensor)",
    _conv_backward,
    _conv_backward_shapes,
)
differentiate("conv", _differentiate_conv, _save_conv)
convolve = torch.ops.mamba_mae.conv
