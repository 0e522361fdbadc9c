"""Mamba2's scan, the specification: written to be read and checked against, not to be fast.

Glossary: b batch, l position of L, h head of H, p channel of a head (mamba_ssm's "headdim"), g group of G whose heads
share B_t and C_t, n state of N.

    dt_t = softplus(dt_t + bias)
    h_t  = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        h_t is (p, n), A one negative number per head
    y_t  = h_t C_t + D x_t                             (Mamba-2, arXiv 2405.21060, scalar A; equations 1 and 2)

Everything is computed in float32, or in float64 when the input is float64, and returned in the input's precision.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.reference.scan import compute_dtype, without_autocast


def step_sizes(dt_BLH: Tensor, bias_H: Tensor | None, softplus: bool) -> Tensor:
    """The final dt (B, L, H)."""
    dt_BLH = dt_BLH if bias_H is None else dt_BLH + bias_H
    return F.softplus(dt_BLH) if softplus else dt_BLH


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    *,
    reverse: bool = False,
) -> Tensor:
    """The scan of `ops.ssd_scan_fn`, one position after another."""
    dtype = compute_dtype(x)
    with without_autocast(x):
        x_BLHP, dt_BLH, A_H, B_BLGN, C_BLGN = (t.to(dtype) for t in (x, dt, A, B, C))
        dt_BLH = step_sizes(dt_BLH, None if dt_bias is None else dt_bias.to(dtype), dt_softplus)
        heads, groups = x.shape[2], B.shape[2]
        B_BLHN, C_BLHN = (t.repeat_interleave(heads // groups, dim=2) for t in (B_BLGN, C_BLGN))

        state_BHPN = x_BLHP.new_zeros(x.shape[0], heads, x.shape[3], B.shape[3])
        y_BHP = [x_BLHP.new_zeros(0)] * x.shape[1]
        # unbind, because slicing step by step would make the backward pass quadratic in L
        x_L, dt_L, B_L, C_L = (t.unbind(1) for t in (x_BLHP, dt_BLH, B_BLHN, C_BLHN))
        positions: Iterable[int] = range(x.shape[1])
        for t in reversed(positions) if reverse else positions:
            decay_BH = torch.exp(dt_L[t] * A_H)
            entering = (dt_L[t][..., None] * x_L[t])[..., None] * B_L[t][:, :, None]
            state_BHPN = decay_BH[..., None, None] * state_BHPN + entering
            y_BHP[t] = (state_BHPN * C_L[t][:, :, None]).sum(-1)

        y_BLHP = torch.stack(y_BHP, dim=1) if y_BHP else torch.zeros_like(x_BLHP)
        if D is not None:
            y_BLHP = y_BLHP + D.to(dtype)[:, None] * x_BLHP
        return y_BLHP.to(x.dtype)
