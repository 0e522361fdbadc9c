"""The scans in operators that every exporter knows, without a loop over positions: for other runtimes such as ONNX's.

A recurrence h_t = a_t h_{t-1} + b_t over L positions is one over L / 2 pairs, whose decay is a product of two, so that
log2(L) halvings solve it (Blelloch 1990) with twice the arithmetic of a loop. Decays are exponentials of sums of
negative numbers: nothing overflows, what underflows has been forgotten, and products of thousands of rounded decays,
which would drift, are not formed. The state of all positions stands in memory,
(B, L, I, N): 50 MB per sample at 1,000 tokens of the small model, 400 MB at 8,000.
Convolution, norm and patches are the plain ones of the other files. The specification is ops/reference/scan.py.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import scan_groups
from ops.chunked.ssd import scan_chunks
from ops.reference.scan import compute_dtype, without_autocast


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
    """The scan of `ops.selective_scan_fn` by halving."""
    dtype, groups = compute_dtype(u), scan_groups(B, C)
    with without_autocast(u):
        u_BLI, delta_BLI = (x.to(dtype).transpose(1, 2) for x in (u, delta))
        if delta_bias is not None:
            delta_BLI = delta_BLI + delta_bias.to(dtype)
        if delta_softplus:
            delta_BLI = F.softplus(delta_BLI)
        B_BLIN, C_BLIN = (_per_position(x.to(dtype), groups, u.shape[1]) for x in (B, C))
        h_BLIN = recurrence(delta_BLI[..., None] * A.to(dtype), (delta_BLI * u_BLI)[..., None] * B_BLIN, reverse)
        y_BLI = (C_BLIN * h_BLIN).sum(-1)
        if D is not None:
            y_BLI = y_BLI + D.to(dtype) * u_BLI
        y_BIL = y_BLI.transpose(1, 2)
        out = (y_BIL if z is None else y_BIL * F.silu(z.to(dtype))).to(u.dtype)
        return (out, h_BLIN[:, 0 if reverse else -1].detach()) if return_last_state else out


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
    """The scan of `ops.ssd_scan_fn`: chunks by matrix products, the state from chunk to chunk by halving."""
    dtype = compute_dtype(x)
    with without_autocast(x):
        tensors = [None if t is None else t.to(dtype) for t in (x, dt, A, B, C, D, dt_bias)]
        return scan_chunks(tensors, None, dt_softplus, reverse, _states_before)[0].to(x.dtype)


def recurrence(rate: Tensor, b: Tensor, reverse: bool = False) -> Tensor:
    """h_t = exp(rate_t) h_{t-1} + b_t from h = 0, or from the last position to the first: (B, L, ...) twice ->
    (B, L, ...); rate at most 0."""
    return _halved(rate.flip(1), b.flip(1)).flip(1) if reverse else _halved(rate, b)


def _halved(rate: Tensor, b: Tensor) -> Tensor:
    length = b.shape[1]
    if length < 2:
        return b
    (rate_even, rate_odd), (b_even, b_odd) = ((x[:, 0::2], x[:, 1::2]) for x in (rate, b))
    pairs, more = length // 2, length % 2
    h_odd = _halved(rate_odd + rate_even[:, :pairs], b_odd + rate_odd.exp() * b_even[:, :pairs])
    h_even = torch.cat([b_even[:, :1], b_even[:, 1:] + rate_even[:, 1:].exp() * h_odd[:, : pairs - 1 + more]], dim=1)
    together = torch.stack([h_even[:, :pairs], h_odd], dim=2).flatten(1, 2)
    return torch.cat([together, h_even[:, pairs:]], dim=1) if more else together


def _states_before(rates: Tensor, contributions: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, c, ...), from zeros, and the last one."""
    states = recurrence(rates, contributions, reverse)
    nothing = torch.zeros_like(states[:, :1])
    if reverse:
        return torch.cat([states[:, 1:], nothing], dim=1), states[:, 0]
    return torch.cat([nothing, states[:, :-1]], dim=1), states[:, -1]


def _per_position(matrix: Tensor, groups: int, dim: int) -> Tensor:
    """B or C, broadcastable to (B, L, I, N)."""
    if matrix.dim() == 2:
        return matrix[None, None]
    if matrix.dim() == 3:
        return matrix.transpose(1, 2)[:, :, None]
    return matrix.permute(0, 3, 1, 2).repeat_interleave(dim // groups, dim=2)
