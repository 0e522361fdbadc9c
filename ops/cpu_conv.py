"""torch.ops.mamba_mae.conv: the fused causal convolution with SiLU of ops/csrc/conv.cpp and its gradient."""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops import cpu_library
from ops.cpu_library import MAX_SPLITS, Conv, Sequence, pointer, rows
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


class ConvCall:
    """One convolution's arguments in the layouts of the kernel, kept alive while it runs. Results are (B, L, I) with
    neighbouring channels, in x's precision; with `accumulate` dx is added to what is there."""

    def __init__(self, x_BLI: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
                 accumulate: bool = False):  # fmt: skip
        self.batch, length, channels = x_BLI.shape
        threads = torch.get_num_threads()
        self.splits = max(1, min(MAX_SPLITS, -(-threads // max(1, self.batch))))
        taps, offset = weight.float().t().contiguous(), None if bias is None else bias.float().contiguous()
        self._alive = x_BLI, taps, offset
        self.arguments = Conv(
            batch=self.batch, length=length, channels=channels, width=weight.shape[1],
            bfloat16_io=x_BLI.dtype == torch.bfloat16, silu=silu, reverse=reverse, accumulate=accumulate,
            threads=min(threads, max(1, self.batch * self.splits)), splits=self.splits,
            x=Sequence.of(x_BLI), weight=pointer(taps), bias=pointer(offset),
        )  # fmt: skip

    def forward(self, out_BLI: Tensor) -> None:
        """Fill `out_BLI`."""
        self.arguments.out = Sequence.of(out_BLI)
        if out_BLI.numel():
            cpu_library.library().conv_forward(byref(self.arguments))

    def backward(self, dout_BLI: Tensor, dx_BLI: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `dx_BLI`; the float32 gradients of weight (I, W) and bias (I,) are returned."""
        parts, width, channels = max(1, self.batch) * self.splits, self.arguments.width, self.arguments.channels
        dweight = dx_BLI.new_zeros(parts, width, channels, dtype=torch.float32)
        dbias = dx_BLI.new_zeros(parts, channels, dtype=torch.float32)
        self.arguments.dout, self.arguments.dx = Sequence.of(dout_BLI), Sequence.of(dx_BLI)
        self.arguments.dweight, self.arguments.dbias = pointer(dweight), pointer(dbias)
        if dx_BLI.numel():
            cpu_library.library().conv_backward(byref(self.arguments))
        return dweight.sum(0).t(), dbias.sum(0)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    x_BLI = rows(x)
    out = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    ConvCall(x_BLI, weight, bias, silu, reverse).forward(out)
    return out.transpose(1, 2)


def _conv_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                   ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    x_BLI, dout_BLI = rows(x), rows(dout.to(x.dtype))
    dx = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    dweight, dbias = ConvCall(x_BLI, weight, bias, silu, reverse).backward(dout_BLI, dx)
    dbias = x.new_empty(0) if bias is None else dbias.to(bias.dtype)
    return dx.transpose(1, 2), dweight.to(weight.dtype).contiguous(), dbias


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
