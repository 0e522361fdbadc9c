"""torch.ops.mamba_mae.triton_conv: the causal convolution with SiLU of ops/triton/kernels/conv.py, and its gradient.

Shapes: D directions, B batch, L positions, I channels, W taps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.operators import differentiate, empty_or_nothing, empty_rows, register
from ops.triton.host import DEVICE, cores, dense, launch, next_power, tile
from ops.triton.kernels.conv import TAPS, conv_backward, conv_forward

ROWS, CHANNELS = 16, 128  # positions and channels of a program of the forward pass
WALK = (64, 32, 16)  # positions of a program of the backward pass: the first that gives every core a program


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool, out: Tensor) -> None:
    """Fill `out` (D, B, L, I), contiguous, from x (B, L, I), and from weight (D, I, W) and bias (D, I) in float32.

    The second direction convolves from the other end.
    """
    batch, length, channels = x.shape
    if not out.numel():
        return
    width = min(CHANNELS, next_power(channels))
    launch(
        conv_forward, (-(-length // ROWS), -(-channels // width), batch),
        x, weight, bias, out, length, batch, x.stride(0), X_ROW=x.stride(1), I=channels, W=weight.shape[2],
        TIMES=ROWS, CHANNELS=width, DIRECTIONS=len(weight), REVERSE=int(reverse), HAS_BIAS=bias is not None,
        SILU=silu, num_warps=4, num_stages=1,
    )  # fmt: skip


def backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool, dx: Tensor
             ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill `dx` (B, L, I) from dout (D, B, L, I). Returns the float32 gradients of weight (D, I, W) and bias (D, I)."""
    (batch, length, channels), (directions, _, taps) = x.shape, weight.shape
    if not dx.numel():
        return torch.zeros_like(weight), weight.new_zeros(directions, channels)
    weight = F.pad(weight, (TAPS - taps, 0))
    width = tile(channels, 64)
    columns = -(-channels // width)
    walk = next((w for w in WALK if length // w * columns * batch >= 8 * cores(x.device)), WALK[-1])
    walks = -(-length // walk)
    sums = x.new_empty(walks * batch, directions, TAPS + 1, channels, dtype=torch.float32)
    launch(
        conv_backward, (walks, columns, batch),
        x, weight, bias, dout, dx, sums, length, batch, x.stride(0), dx.stride(0), *dout.stride()[:2],
        X_ROW=x.stride(1), DX_ROW=dx.stride(1), DOUT_ROW=dout.stride(2), I=channels, TIMES=walk, CHANNELS=width,
        FORWARD=int(directions == 2 or not reverse), BACKWARD=int(directions == 2 or reverse),
        HAS_BIAS=bias is not None, SILU=silu, num_warps=1, num_stages=1,
    )  # fmt: skip
    total = sums.sum(0)
    return total[:, TAPS - taps : TAPS].transpose(1, 2), total[:, TAPS]


def _parameters(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return weight.float().contiguous()[None], None if bias is None else bias.float().contiguous()[None]


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    out = x.new_empty(x.shape[0], x.shape[2], x.shape[1])
    forward(dense(x.transpose(1, 2)), *_parameters(weight, bias), silu, reverse, out[None])
    return out.transpose(1, 2)


def _conv_backward(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                   ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    rows, drows = dense(x.transpose(1, 2)), dense(dout.to(x.dtype).transpose(1, 2))
    dx = torch.empty_like(rows, memory_format=torch.contiguous_format)
    dweight, dbias = backward(drows[None], rows, *_parameters(weight, bias), silu, reverse, dx)
    dbias = x.new_empty(0) if bias is None else dbias[0].to(bias.dtype)
    return dx.transpose(1, 2), dweight[0].to(weight.dtype).contiguous(), dbias


def _conv_shapes(x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool) -> Tensor:
    return empty_rows(x)


def _conv_backward_shapes(dout: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, reverse: bool
                          ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return empty_rows(x), weight.new_empty(weight.shape), empty_or_nothing(bias, x)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grads = torch.ops.mamba_mae.triton_conv_backward(dout, *tensors, ctx.silu, ctx.reverse)
    return (*(None if x is None else grad for x, grad in zip(tensors, grads)), None, None)


register(
    "triton_conv(Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse) -> Tensor",
    _conv,
    _conv_shapes,
    device=DEVICE,
)
register(
    "triton_conv_backward(Tensor dout, Tensor x, Tensor weight, Tensor? bias, bool silu, bool reverse)"
    " -> (Tensor, Tensor, Tensor)",
    _conv_backward,
    _conv_backward_shapes,
    device=DEVICE,
)
differentiate("triton_conv", _gradients, _save)
convolve = torch.ops.mamba_mae.triton_conv
