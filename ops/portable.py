"""The scans in operators that every exporter supports, without a loop over positions: for runtimes such as ONNX's.

A recurrence h_t = a_t h_{t-1} + b_t over L positions is one over L / 2 pairs whose decay is a product of two. After
log2(L) such halvings it is solved (Blelloch 1990), with twice the arithmetic of a loop. Decays are exponentials of sums
of negative numbers, so nothing overflows, and only a forgotten state underflows. Products of thousands of rounded
decays would drift; they are never formed. The states of all positions stand in memory, (B, L, I, N): 50 MB per sample
at 1,000 tokens of the small model, 400 MB at 8,000.
Convolution, norm and patches of an exported model are those of ops/reference. The specification is
ops/reference/scan.py. Shape suffixes: B batch, L positions, I inner channels, N states, c chunks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import ScanInputs, SSDInputs
from ops.chunked.ssd import scan_chunks
from ops.precision import compute_dtype, without_autocast


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn` by halving."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse = inputs
    dtype, groups = compute_dtype(u), inputs.groups()
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
        return out, h_BLIN[:, 0 if reverse else -1]


def ssd_scan(inputs: SSDInputs) -> Tensor:
    """The scan of `ops.ssd_scan_fn`: chunks by matrix products, the state from chunk to chunk by halving."""
    x = inputs.x
    with without_autocast(x):
        return scan_chunks(inputs.to(compute_dtype(x)), None, _pass_states)[0].to(x.dtype)


def recurrence(rate: Tensor, b: Tensor, reverse: bool = False) -> Tensor:
    """h_t = exp(rate_t) h_{t-1} + b_t from h = 0: (B, L, ...) twice -> (B, L, ...). rate is at most 0.

    reverse: from the last position to the first.
    """
    return _halve(rate.flip(1), b.flip(1)).flip(1) if reverse else _halve(rate, b)


def _halve(rate: Tensor, b: Tensor) -> Tensor:
    """`recurrence` from the first position, by the recurrence of pairs of positions."""
    length = b.shape[1]
    if length < 2:
        return b
    (rate_even, rate_odd), (b_even, b_odd) = ((x[:, 0::2], x[:, 1::2]) for x in (rate, b))
    pairs, rest = length // 2, length % 2
    h_odd = _halve(rate_odd + rate_even[:, :pairs], b_odd + rate_odd.exp() * b_even[:, :pairs])
    h_even = torch.cat([b_even[:, :1], b_even[:, 1:] + rate_even[:, 1:].exp() * h_odd[:, : pairs - 1 + rest]], dim=1)
    interleaved = torch.stack([h_even[:, :pairs], h_odd], dim=2).flatten(1, 2)
    return torch.cat([interleaved, h_even[:, pairs:]], dim=1) if rest else interleaved


def _pass_states(rates: Tensor, contributions: Tensor, state: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, c, ...), from a state of zeros, and the state after the last chunk."""
    states = recurrence(rates, contributions, reverse)
    zeros = torch.zeros_like(states[:, :1])
    if reverse:
        return torch.cat([states[:, 1:], zeros], dim=1), states[:, 0]
    return torch.cat([zeros, states[:, :-1]], dim=1), states[:, -1]


def _per_position(matrix: Tensor, groups: int, dim: int) -> Tensor:
    """B or C, broadcastable to (B, L, I, N)."""
    if matrix.dim() == 2:
        return matrix[None, None]
    if matrix.dim() == 3:
        return matrix.transpose(1, 2)[:, :, None]
    return matrix.permute(0, 3, 1, 2).repeat_interleave(dim // groups, dim=2)
