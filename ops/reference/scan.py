"""The specification of the selective scan: written to be read and compared with, not to be fast.

    delta_t = softplus(delta_t + bias)                                  (Mamba, arXiv 2312.00752, section 3.2)
    h_t     = exp(delta_t A) h_{t-1} + (delta_t B_t) u_t                (equations 2a and 4, B_t simplified)
    y_t     = <C_t, h_t> + D u_t                                        (equation 2b, with the skip D)
    out_t   = y_t silu(z_t)                                             (docs/method.md#bidirectional-mamba)

Shape suffixes: B batch, I inner channels (mamba_ssm's "dim"), L positions, N states. G is the number of groups.
Everything is computed in float32, or in float64 when the input is float64, and returned in the input's precision.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import ScanInputs
from ops.precision import compute_dtype, without_autocast


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn`, one position after another."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse = inputs
    dtype, groups = compute_dtype(u), inputs.groups()
    with without_autocast(u):
        u_BIL, A_IN = u.to(dtype), A.to(dtype)
        # torch.compile expects a gradient in the layout of softplus's input: it is contiguous, so the input must be.
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
        return y_BIL.to(u.dtype), h_BIN


def _per_position(matrix: Tensor, shape: torch.Size, groups: int) -> tuple[Tensor, ...]:
    """B or C as one tensor per position, broadcastable to (B, I, N)."""
    _, dim, length = shape
    if matrix.dim() == 2:
        return (matrix,) * length
    if matrix.dim() == 3:
        return matrix[:, None].unbind(-1)
    return matrix.repeat_interleave(dim // groups, dim=1).unbind(-1)
