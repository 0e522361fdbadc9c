"""The specification of the causal depthwise convolution: F.conv1d on the padded sequence.

Shape suffixes: B batch, I channels, L positions.
Everything is computed in float32, or in float64 when the input is float64, and returned in the input's precision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import ConvInputs
from ops.precision import compute_dtype, without_autocast


def causal_conv1d(inputs: ConvInputs) -> Tensor:
    """The depthwise convolution of `ops.causal_conv1d_fn`."""
    x, weight, bias, seq_idx, initial_states, activation, reverse = inputs
    dtype = compute_dtype(x)
    with without_autocast(x):
        x_BIL = x.to(dtype)
        x_BIL = x_BIL.flip(-1) if reverse else x_BIL
        if not x.shape[2]:  # which F.conv1d refuses
            return x_BIL.to(x.dtype)
        if initial_states is None:
            before = x_BIL.new_zeros(*x.shape[:2], weight.shape[1] - 1)
        else:
            before = initial_states.to(dtype)
        padded = torch.cat([before, x_BIL], dim=-1)
        kernel, offset = weight.to(dtype)[:, None], None if bias is None else bias.to(dtype)
        if seq_idx is None:
            y_BIL = F.conv1d(padded, kernel, offset, groups=x.shape[1])
        else:
            y_BIL = _separate_sequences(padded, kernel, offset, seq_idx.flip(-1) if reverse else seq_idx)
        y_BIL = F.silu(y_BIL) if activation else y_BIL
        return (y_BIL.flip(-1) if reverse else y_BIL).to(x.dtype)


def _separate_sequences(padded: Tensor, kernel: Tensor, offset: Tensor | None, seq_idx: Tensor) -> Tensor:
    """Convolve each packed sequence as if the others were zero. Positions with a negative index give zero."""
    width = kernel.shape[-1]
    y_BIL = torch.zeros_like(padded[..., width - 1 :])
    for index in seq_idx.unique():
        if index < 0:
            continue
        own = (seq_idx == index)[:, None]
        alone = F.conv1d(padded * F.pad(own, (width - 1, 0)), kernel, offset, groups=kernel.shape[0])
        y_BIL = torch.where(own, alone, y_BIL)
    return y_BIL
