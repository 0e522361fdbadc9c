"""Causal depthwise convolution with optional SiLU as a sum of shifted multiplications on channel-last memory.

y_t = bias + sum_s weight[:, W-1-s] x_{t-s}, s = 0..W-1. The reverse direction reads x_{t+s} instead, without flipped
copies. PyTorch's own depthwise convolution needs channels first and is several times slower.
Shape suffixes: B batch, L positions, I channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import ConvInputs
from ops.operators import ANY_DEVICE, differentiate, empty_or_nothing, register
from ops.precision import below_autocast, compute_dtype


def causal_conv1d(inputs: ConvInputs) -> Tensor:
    """The convolution of `ops.causal_conv1d_fn`; differentiable once."""
    x, weight, bias, seq_idx, initial_states, activation, reverse = inputs
    length, before = x.shape[2], weight.shape[1] - 1
    if initial_states is not None:
        states = initial_states.to(x.dtype)
        x = torch.cat([x, states.flip(-1)], dim=-1) if reverse else torch.cat([states, x], dim=-1)
    x_BLI = x.transpose(1, 2)
    out_BLI = torch.ops.mamba_mae.shifted_sum(x_BLI, weight, bias, seq_idx, activation is not None, reverse)
    out = out_BLI.transpose(1, 2)
    if initial_states is None:
        return out
    return out[..., :length] if reverse else out[..., before:]


def _forward(x_BLI: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, silu: bool,
             reverse: bool) -> Tensor:  # fmt: skip
    y = _sum(x_BLI.to(compute_dtype(x_BLI)), weight, bias, seq_idx, reverse)
    return (F.silu(y, inplace=True) if silu else y).to(x_BLI.dtype)


def _backward(grad: Tensor, x_BLI: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, silu: bool,
              reverse: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    x = x_BLI.to(compute_dtype(x_BLI))
    dy = grad.to(x.dtype)
    if silu:
        y = _sum(x, weight, bias, seq_idx, reverse)
        sigmoid = y.sigmoid()
        dy = y.sub_(y * sigmoid).add_(1).mul_(sigmoid).mul_(dy)  # silu' = s (1 + y (1 - s))
    if seq_idx is not None:
        dy = dy * (seq_idx >= 0)[..., None]
    dx = x.new_zeros(x.shape)
    dweight = x.new_zeros(weight.shape)
    for shift, tap in _taps(weight.to(x.dtype)):
        target, source = _shifted(x.shape[1], shift, reverse)
        dy_target = _within(dy[:, target], seq_idx, target, source)
        dx[:, source].addcmul_(dy_target, tap)
        dweight[:, weight.shape[1] - 1 - shift] = (dy_target * x[:, source]).sum((0, 1))
    dbias = grad.new_empty(0) if bias is None else dy.sum((0, 1)).to(bias.dtype)
    return dx.to(x_BLI.dtype), dweight.to(weight.dtype), dbias


def _forward_shapes(x_BLI: Tensor, *unused: Any) -> Tensor:
    return x_BLI.new_empty(x_BLI.shape)


def _backward_shapes(
    grad: Tensor, x_BLI: Tensor, weight: Tensor, bias: Tensor | None, *unused: Any
) -> tuple[Tensor, ...]:
    return x_BLI.new_empty(x_BLI.shape), weight.new_empty(weight.shape), empty_or_nothing(bias, grad)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu, ctx.reverse = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # read once: activation checkpointing allows no second time
    dx, dweight, dbias = torch.ops.mamba_mae.shifted_sum_backward(grad, *tensors, ctx.silu, ctx.reverse)
    return dx, dweight, None if tensors[2] is None else dbias, None, None, None


def _sum(x: Tensor, weight: Tensor, bias: Tensor | None, seq_idx: Tensor | None, reverse: bool) -> Tensor:
    """The convolution before the activation, (B, L, I) -> (B, L, I), in x's precision."""
    y = torch.zeros_like(x, memory_format=torch.contiguous_format)
    if bias is not None:
        y += bias.to(x.dtype)
    for shift, tap in _taps(weight.to(x.dtype)):
        target, source = _shifted(x.shape[1], shift, reverse)
        y[:, target].addcmul_(_within(x[:, source], seq_idx, target, source), tap)
    return y if seq_idx is None else y * (seq_idx >= 0)[..., None]


def _taps(weight: Tensor) -> list[tuple[int, Tensor]]:
    """(shift, weights of all channels (I,)) of each tap. The last tap multiplies the position itself."""
    taps = weight.t().contiguous().unbind(0)
    return list(enumerate(reversed(taps)))


def _shifted(length: int, shift: int, reverse: bool) -> tuple[slice, slice]:
    """Target and source positions of a tap: each target reads `shift` steps back in the direction of the walk."""
    shift = min(shift, length)
    later, earlier = slice(shift, length), slice(0, length - shift)
    return (earlier, later) if reverse else (later, earlier)


def _within(x: Tensor, seq_idx: Tensor | None, target: slice, source: slice) -> Tensor:
    """x, zero where source and target belong to different packed sequences."""
    return x if seq_idx is None else x * (seq_idx[:, target] == seq_idx[:, source])[..., None]


_INPUTS = "Tensor x, Tensor weight, Tensor? bias, Tensor? seq_idx, bool silu, bool reverse"
register(f"shifted_sum({_INPUTS}) -> Tensor", below_autocast(_forward), _forward_shapes, device=ANY_DEVICE)
register(
    f"shifted_sum_backward(Tensor grad, {_INPUTS}) -> (Tensor, Tensor, Tensor)",
    below_autocast(_backward),
    _backward_shapes,
    device=ANY_DEVICE,
)
differentiate("shifted_sum", _gradients, _save)
