"""torch.ops.mamba_mae.conv: the fused causal convolution with SiLU of ops/cpu/csrc/conv.cpp, and its gradient.

Shapes: D directions, B batch, L positions, I channels, W taps.
"""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops.cpu import library as cpu_library
from ops.cpu.library import Conv, Sequence, pointer, rows, thread_split
from ops.operators import differentiate, empty_or_nothing, empty_rows, register


class ConvCall:
    """One call of the convolution kernel: its arguments in the kernel's layouts, which live as long as this object.

    The call convolves one direction, or two over the same tokens. The first direction starts from the last token if
    `reverse`, the second from the other end. x and dx (B, L, I) are shared; weight is (D, I, W), bias (D, I). Results
    are (D, B, L, I), channels side by side in memory, in x's precision. With `accumulate`, dx is added to the memory's
    content.
    """

    def __init__(self, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool,
                 accumulate: bool = False) -> None:  # fmt: skip
        batch, length, channels = x.shape
        taps, offset = (None if p is None else p.float().contiguous() for p in (weight, bias))
        self.weight_shape = weight.shape
        self._alive = x, taps, offset
        self.arguments = Conv(
            directions=len(weight), batch=batch, length=length, channels=channels, width=weight.shape[2],
            bfloat16_io=x.dtype == torch.bfloat16, silu=silu, reverse=reverse, accumulate=accumulate,
            x=Sequence.of(x), weight=pointer(taps), bias=pointer(offset), **thread_split(batch),
        )  # fmt: skip

    def forward(self, out: Tensor) -> None:
        """Fill `out`."""
        self.arguments.out = Sequence.of(out)
        if out.numel():
            cpu_library.library().conv_forward(byref(self.arguments))

    def backward(self, dout: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
        """Fill `dx`. Returns the float32 gradients of weight and bias."""
        dweight = torch.zeros(self.weight_shape, dtype=torch.float32)
        dbias = torch.zeros(self.weight_shape[:2], dtype=torch.float32)
        self.arguments.dout, self.arguments.dx = Sequence.of(dout), Sequence.of(dx)
        self.arguments.dweight, self.arguments.dbias = pointer(dweight), pointer(dbias)
        if dx.numel():
            cpu_library.library().conv_backward(byref(self.arguments))
        return dweight, dbias


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    x_BLI = rows(x)
    out = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    _conv_call(x_BLI, weight, bias, silu, reverse).forward(out[None])
    return out.transpose(1, 2)


def _conv_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                   ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    x_BLI, dout_BLI = rows(x), rows(dout.to(x.dtype))
    dx = torch.empty_like(x_BLI, memory_format=torch.contiguous_format)
    dweight, dbias = _conv_call(x_BLI, weight, bias, silu, reverse).backward(dout_BLI[None], dx)
    dbias = x.new_empty(0) if bias is None else dbias[0].to(bias.dtype)
    return dx.transpose(1, 2), dweight[0].to(weight.dtype), dbias


def _conv_call(x_BLI: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> ConvCall:
    return ConvCall(x_BLI, weight[None], None if bias is None else bias[None], silu, reverse)


def _conv_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    return empty_rows(x)


def _conv_backward_shapes(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                          ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return empty_rows(x), weight.new_empty(weight.shape), empty_or_nothing(bias, x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # read once: activation checkpointing allows no second time
    grads = torch.ops.mamba_mae.conv_backward(dout, *tensors, ctx.silu, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None)


register("conv(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) -> Tensor", _conv, _conv_shapes)
register(
    "conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse)"
    " -> (Tensor, Tensor, Tensor)",
    _conv_backward,
    _conv_backward_shapes,
)
differentiate("conv", _gradients, _save)
convolve = torch.ops.mamba_mae.conv
