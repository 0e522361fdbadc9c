"""The specification of Mamba2's scan: written to be read and compared with, not to be fast.

    dt_t = softplus(dt_t + bias)
    h_t  = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T        h_t is (P, N), A one negative number per head
    y_t  = h_t C_t + D x_t                             (Mamba-2, arXiv 2405.21060, scalar A; equations 1 and 2)

Shape suffixes: B batch, L positions, H heads, P channels of a head (mamba_ssm's "headdim"), N states, G groups of heads
that share B_t and C_t.
Everything is computed in float32, or in float64 when the input is float64, and returned in the input's precision.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ops.arguments import SSDInputs
from ops.precision import compute_dtype, without_autocast


def ssd_scan(inputs: SSDInputs) -> Tensor:
    """The scan of `ops.ssd_scan_fn`, one position after another."""
    precision = inputs.x.dtype
    with without_autocast(inputs.x):
        inputs = inputs.to(compute_dtype(inputs.x))
        x_BLHP, _, A_H, B_BLGN, C_BLGN, D_H, _, _, reverse = inputs
        dt_BLH = inputs.step_sizes()
        batch, length, heads, width = x_BLHP.shape
        groups, states = B_BLGN.shape[2:]
        B_BLHN, C_BLHN = (t.repeat_interleave(heads // groups, dim=2) for t in (B_BLGN, C_BLGN))

        state_BHPN = x_BLHP.new_zeros(batch, heads, width, states)
        y_BHP = [x_BLHP.new_zeros(0)] * length
        # unbind, because slicing step by step would make the backward pass quadratic in L
        x_L, dt_L, B_L, C_L = (t.unbind(1) for t in (x_BLHP, dt_BLH, B_BLHN, C_BLHN))
        positions: Iterable[int] = range(length)
        for t in reversed(positions) if reverse else positions:
            decay_BH = torch.exp(dt_L[t] * A_H)
            added_BHPN = (dt_L[t][..., None] * x_L[t])[..., None] * B_L[t][:, :, None]
            state_BHPN = decay_BH[..., None, None] * state_BHPN + added_BHPN
            y_BHP[t] = (state_BHPN * C_L[t][:, :, None]).sum(-1)

        y_BLHP = torch.stack(y_BHP, dim=1) if y_BHP else torch.zeros_like(x_BLHP)
        if D_H is not None:
            y_BLHP = y_BLHP + D_H[:, None] * x_BLHP
        return y_BLHP.to(precision)
