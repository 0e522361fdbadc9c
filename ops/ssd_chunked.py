"""Mamba2's scan by matrix products, fast on any device (state-space duality, arXiv 2405.21060, section 6).

Inside a chunk of Q positions the scan is a masked attention: y_i = sum_j decay(j -> i) <C_i, B_j> dt_j x_j. From chunk
to chunk only the state passes. Decays are exponentials of sums over the positions between j and i, added up directly:
differences of running sums would lose small steps behind a large one, and no exponent is ever positive.

The sequence is cut into blocks of chunks that bound the memory. Only the state before each block is kept; the backward
pass computes a block again and lets autograd differentiate it. The reverse direction mirrors masks and sums, not data.
Glossary: c chunk, Q position in a chunk, H head, G group, R heads of a group, P channel of a head, N state.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ops.reference import compute_dtype, without_autocast
from ops.ssd import step_sizes

CHUNK = 64
BLOCK_ELEMENTS = 1 << 21  # decays (Q, Q) of all heads worked on at once; a few such buffers are alive: 8 MiB in float32


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
    """The scan of `ops.ssd_scan_fn` by chunks; differentiable once."""
    return _ChunkedScan.apply(x, dt, A, B, C, D, dt_bias, dt_softplus, reverse)  # pyright: ignore[reportReturnType]


class _ChunkedScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        *tensors, ctx.softplus, ctx.reverse = arguments
        x, B = tensors[0], tensors[3]
        out, starts = torch.empty_like(x), []
        state = x.new_zeros(x.shape[0], *_state_shape(x, B), dtype=compute_dtype(x))
        with without_autocast(x):
            for block in _blocks(x, ctx.reverse):
                starts.append(state)
                out[:, block], state = _scan_block(_cut(tensors, block), state, ctx.softplus, ctx.reverse)
        ctx.save_for_backward(*tensors, *starts)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        saved = ctx.saved_tensors  # once: activation checkpointing hands them out a single time
        tensors, starts = saved[:7], saved[7:]
        x, dtype = tensors[0], compute_dtype(tensors[0])
        totals: list[Any] = [None if t is None else torch.zeros_like(t, dtype=dtype) for t in tensors]
        state_grad = torch.zeros_like(starts[0]) if starts else None
        with without_autocast(x):
            for block, start in reversed(list(zip(_blocks(x, ctx.reverse), starts))):
                leaves = [None if t is None else t.detach().requires_grad_() for t in (*_cut(tensors, block), start)]
                with torch.enable_grad():
                    results = _scan_block(leaves[:-1], leaves[-1], ctx.softplus, ctx.reverse)
                present = [leaf for leaf in leaves if leaf is not None]
                found = torch.autograd.grad(results, present, (grads[0][:, block].to(dtype), state_grad))
                *gradients, state_grad = found
                for total, gradient in zip([total for total in totals if total is not None], gradients):
                    at = total[:, block] if total.dim() > 1 else total  # a sequence, or one number per head
                    at += gradient
        return *(None if total is None else total.to(t.dtype) for t, total in zip(tensors, totals)), None, None


def _state_shape(x: Tensor, B: Tensor) -> tuple[int, int, int, int]:
    """(G, N, R, P)."""
    return B.shape[2], B.shape[3], x.shape[2] // B.shape[2], x.shape[3]


def _blocks(x: Tensor, reverse: bool) -> list[slice]:
    """Positions of each block, in the order of the scan."""
    batch, length, heads, _ = x.shape
    chunk = min(CHUNK, max(1, length))
    step = chunk * max(1, BLOCK_ELEMENTS // max(1, batch * heads * chunk * chunk))
    blocks = [slice(at, min(at + step, length)) for at in range(0, length, step)]
    return blocks[::-1] if reverse else blocks


def _cut(tensors: Any, block: slice) -> list[Any]:
    """One block of the sequences, and the numbers per head, in the precision of the state."""
    dtype = compute_dtype(tensors[0])
    return [t if t is None else (t[:, block] if t.dim() > 1 else t).to(dtype) for t in tensors]


def _scan_block(tensors: Any, state_BGNRP: Any, softplus: bool, reverse: bool) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) of one block, `tensors` as `_cut` gives them, and the state after it, from the state before it."""
    x, dt, A, B, C, D, bias = tensors
    length, (groups, _, per_group, _) = x.shape[1], _state_shape(x, B)
    chunk = min(CHUNK, length)
    chunks = math.ceil(length / chunk)
    first, last = (-1, 0) if reverse else (0, -1)  # positions of a chunk in the order of the scan

    def by_chunk(sequence: Tensor) -> Tensor:
        """(B, L, ...) -> (B, c, Q, ...); a padded step of size 0 lets the state pass."""
        padding = (0, 0) * (sequence.dim() - 2) + (0, chunks * chunk - length)
        return F.pad(sequence, padding).unflatten(1, (chunks, chunk))

    dt = step_sizes(dt, bias, softplus)
    rate_BcHQ = by_chunk(dt * A).transpose(2, 3)
    sums = segment_sums(rate_BcHQ, reverse)
    decay = sums.exp().unflatten(2, (groups, per_group))  # (B, c, G, R, Q, Q)
    from_start = (sums[..., first] + rate_BcHQ[..., first, None]).exp().unflatten(2, (groups, per_group))
    to_end = decay[..., last, :]  # (B, c, G, R, Q), as from_start

    u_BcGRQP = by_chunk(x * dt[..., None]).unflatten(3, (groups, per_group)).permute(0, 1, 3, 4, 2, 5)
    B_BcGQN, C_BcGQN = by_chunk(B).transpose(2, 3), by_chunk(C).transpose(2, 3)
    inside = ((C_BcGQN @ B_BcGQN.mT)[:, :, :, None] * decay) @ u_BcGRQP

    arriving = (u_BcGRQP * to_end[..., None]).transpose(3, 4).flatten(-2)  # (B, c, G, Q, R P)
    contributions = (B_BcGQN.mT @ arriving).unflatten(-1, (per_group, -1))  # (B, c, G, N, R, P)
    passing = from_start[..., last][:, :, :, None, :, None]
    starts = [state_BGNRP] * chunks
    steps = list(enumerate(zip(passing.unbind(1), contributions.unbind(1))))
    for index, (decay_c, contribution) in reversed(steps) if reverse else steps:
        starts[index] = state_BGNRP
        state_BGNRP = decay_c * state_BGNRP + contribution
    before = (C_BcGQN @ torch.stack(starts, dim=1).flatten(-2)).unflatten(-1, (per_group, -1))  # (B, c, G, Q, R, P)

    y_BcQGRP = inside.permute(0, 1, 4, 2, 3, 5) + (before * from_start.mT[..., None]).transpose(2, 3)
    y_BLHP = y_BcQGRP.flatten(3, 4).flatten(1, 2)[:, :length]
    return y_BLHP if D is None else y_BLHP + D[:, None] * x, state_BGNRP


def segment_sums(rate: Tensor, reverse: bool) -> Tensor:
    """(..., Q) -> (..., Q, Q): at [i, j] the sum of `rate` over the steps that lead from j to i, -inf if none do.

    Forward these are j+1..i for j <= i, in reverse i..j-1 for j >= i: the transpose of the forward sums, one step on.
    """
    steps = rate.shape[-1]
    later = torch.ones(steps, steps, dtype=torch.bool, device=rate.device).tril(-1)
    rows = (rate.roll(1, -1) if reverse else rate)[..., None].expand(*rate.shape, steps)
    sums = rows.masked_fill(~later, 0).cumsum(-2).masked_fill(later.mT, -math.inf)
    return sums.mT if reverse else sums
