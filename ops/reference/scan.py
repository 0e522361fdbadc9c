"""The specification: selective scan and causal convolution, written to be read and checked against, not to be fast.

Glossary: b batch, i channel of I (mamba_ssm's "dim"), l position of L, n state of N, g group of G, w tap of W.

    delta_t = softplus(delta_t + bias)                                  (Mamba, arXiv 2312.00752, section 3.2)
    h_t     = exp(delta_t A) h_{t-1} + (delta_t B_t) u_t                (equations 2a and 4, B_t simplified)
    y_t     = <C_t, h_t> + D u_t                                        (equation 2b, with the skip D)
    out_t   = y_t silu(z_t)                                             (docs/method.md#bidirectional-mamba)

Everything is computed in float32, or in float64 when the input is float64, and returned in the input's precision.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import scan_groups


def compute_dtype(u: Tensor) -> torch.dtype:
    """The precision of the state: float64 for float64 inputs, otherwise float32."""
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Where autocast keeps its hands off, on devices that have any: meta tensors do not."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    reverse: bool = False,
) -> Any:
    """The scan of `ops.selective_scan_fn`, one position after another."""
    dtype = compute_dtype(u)
    with without_autocast(u):
        groups = scan_groups(B, C)
        u_BIL, A_IN = u.to(dtype), A.to(dtype)
        # contiguous as its gradient: torch.compile expects softplus's backward pass to keep the layout of its input
        delta_BLI = delta.to(dtype).transpose(1, 2).contiguous()
        if delta_bias is not None:
            delta_BLI = delta_BLI + delta_bias.to(dtype)
        if delta_softplus:
            delta_BLI = F.softplus(delta_BLI)

        h_BIN = u_BIL.new_zeros(u.shape[0], *A.shape)
        y_BI = [h_BIN[..., 0]] * u.shape[2]
        # unbind, because slicing step by step would make the backward pass quadratic in L
        u_L, delta_L = u_BIL.unbind(-1), delta_BLI.unbind(1)
        B_L, C_L = _per_position(B.to(dtype), u.shape, groups), _per_position(C.to(dtype), u.shape, groups)
        positions: Iterable[int] = range(u.shape[2])
        for t in reversed(positions) if reverse else positions:
            decay_BIN = torch.exp(delta_L[t][..., None] * A_IN)
            h_BIN = decay_BIN * h_BIN + delta_L[t][..., None] * B_L[t] * u_L[t][..., None]
            y_BI[t] = (C_L[t] * h_BIN).sum(-1)

        y_BIL = torch.stack(y_BI, dim=-1) if y_BI else torch.zeros_like(u_BIL)
        if D is not None:
            y_BIL = y_BIL + D.to(dtype)[:, None] * u_BIL
        if z is not None:
            y_BIL = y_BIL * F.silu(z.to(dtype))
        out = y_BIL.to(u.dtype)
        return (out, h_BIN.detach()) if return_last_state else out


def _per_position(matrix: Tensor, shape: torch.Size, groups: int) -> tuple[Tensor, ...]:
    """B or C as one tensor per position, broadcastable to (b, i, n)."""
    _, dim, length = shape
    if matrix.dim() == 2:
        return (matrix,) * length
    if matrix.dim() == 3:
        return matrix[:, None].unbind(-1)
    return matrix.repeat_interleave(dim // groups, dim=1).unbind(-1)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
    *,
    reverse: bool = False,
) -> Any:
    """The depthwise convolution of `ops.causal_conv1d_fn`, by F.conv1d on the padded sequence."""
    dtype = compute_dtype(x)
    with without_autocast(x):
        width = weight.shape[1]
        x_BIL = x.to(dtype)
        x_BIL = x_BIL.flip(-1) if reverse else x_BIL
        before = x_BIL.new_zeros(*x.shape[:2], width - 1) if initial_states is None else initial_states.to(dtype)
        padded = torch.cat([before, x_BIL], dim=-1)
        kernel, offset = weight.to(dtype)[:, None], None if bias is None else bias.to(dtype)
        if seq_idx is None:
            y_BIL = F.conv1d(padded, kernel, offset, groups=x.shape[1])
        else:
            seq_idx = seq_idx.flip(-1) if reverse else seq_idx
            y_BIL = _separate_sequences(padded, kernel, offset, seq_idx)
        y_BIL = F.silu(y_BIL) if activation else y_BIL
        out = (y_BIL.flip(-1) if reverse else y_BIL).to(x.dtype)
        if not return_final_states:
            return out
        final = padded[..., padded.shape[-1] - (width - 1) :].to(x.dtype)
        return out, final if final_states_out is None else final_states_out.copy_(final)


def _separate_sequences(padded: Tensor, kernel: Tensor, offset: Tensor | None, seq_idx: Tensor) -> Tensor:
    """Convolve every packed sequence as if the others were zero; positions with a negative index give zero."""
    width = kernel.shape[-1]
    y_BIL = torch.zeros_like(padded[..., width - 1 :])
    for index in seq_idx.unique():
        if index < 0:
            continue
        mine = (seq_idx == index)[:, None]
        alone = F.conv1d(padded * F.pad(mine, (width - 1, 0)), kernel, offset, groups=kernel.shape[0])
        y_BIL = torch.where(mine, alone, y_BIL)
    return y_BIL
