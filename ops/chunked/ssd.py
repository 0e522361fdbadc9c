"""Mamba2's scan by matrix products, fast on any device (state-space duality, arXiv 2405.21060, section 6).

Inside a chunk of Q positions the scan is a masked attention: y_i = sum_j decay(j -> i) <C_i, B_j> dt_j x_j. From chunk
to chunk only the state passes. Decays are exponentials of sums over the positions between j and i, added up directly:
differences of running sums would lose small steps behind a large one, and no exponent is ever positive.

The sequence is cut into blocks of chunks that bound the memory. Only the state before each block is kept; the backward
pass computes a block again and lets autograd differentiate it. The reverse direction mirrors masks and sums, not data.
Glossary: c chunk, Q position in a chunk, H head, G group, R heads of a group, P channel of a head, N state.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.operators import (
    ANY_DEVICE,
    autograd_in_kernel,
    below_autocast,
    differentiate,
    empty_or_nothing,
    register,
)
from ops.reference.scan import compute_dtype
from ops.reference.ssd import step_sizes

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
    return torch.ops.mamba_mae.chunked_ssd(x, dt, A, B, C, D, dt_bias, dt_softplus, reverse, False)[0]


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """out (B, L, H, P), and with `keep` the states before each block (blocks, B, G, N, R, P)."""
    *tensors, softplus, reverse, keep = arguments
    x, B = tensors[0], tensors[3]
    out, starts = x.new_empty(x.shape), _new_starts(x, B, keep)
    state = x.new_zeros(x.shape[0], *_state_shape(x, B), dtype=compute_dtype(x))
    for index, block in enumerate(_blocks(x, reverse)):
        if keep:
            starts[index] = state
        out[:, block], state = scan_chunks(_cut(tensors, block), state, softplus, reverse, _step_by_step)
    return out, starts


def _backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, starts, softplus, reverse = arguments
    x, dtype = tensors[0], compute_dtype(tensors[0])
    totals: list[Any] = [None if t is None else t.new_zeros(t.shape, dtype=dtype) for t in tensors]
    state_grad = starts.new_zeros(starts.shape[1:])
    for block, start in reversed(list(zip(_blocks(x, reverse), starts))):
        leaves = [None if t is None else t.detach().requires_grad_() for t in (*_cut(tensors, block), start)]
        with autograd_in_kernel():
            results = scan_chunks(leaves[:-1], leaves[-1], softplus, reverse, _step_by_step)
        present = [leaf for leaf in leaves if leaf is not None]
        *gradients, state_grad = torch.autograd.grad(results, present, (grad[:, block].to(dtype), state_grad))
        for total, gradient in zip([total for total in totals if total is not None], gradients):
            at = total[:, block] if total.dim() > 1 else total  # a sequence, or one number per head
            at += gradient
    return tuple(grad.new_empty(0) if total is None else total.to(t.dtype) for t, total in zip(tensors, totals))


def _forward_shapes(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), _new_starts(x, B, arguments[-1])


def _backward_shapes(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    return tuple(empty_or_nothing(t, grad) for t in arguments[:7])


def _new_starts(x: Tensor, B: Tensor, keep: bool) -> Tensor:
    blocks = -(-x.shape[1] // _block_length(x)) if keep else 0
    return x.new_empty(blocks, x.shape[0], *_state_shape(x, B), dtype=compute_dtype(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor, unused: None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # once: activation checkpointing hands them out a single time
    gradients = torch.ops.mamba_mae.chunked_ssd_backward(grad, *tensors, ctx.softplus, ctx.reverse)
    return *(None if t is None else gradient for t, gradient in zip(tensors, gradients)), None, None, None


def _state_shape(x: Tensor, B: Tensor) -> tuple[int, int, int, int]:
    """(G, N, R, P)."""
    return B.shape[2], B.shape[3], x.shape[2] // B.shape[2], x.shape[3]


def _blocks(x: Tensor, reverse: bool) -> list[slice]:
    """Positions of each block, in the order of the scan."""
    length, step = x.shape[1], _block_length(x)
    blocks = [slice(at, min(at + step, length)) for at in range(0, length, step)]
    return blocks[::-1] if reverse else blocks


def _block_length(x: Tensor) -> int:
    """Positions of a block, whole chunks."""
    batch, length, heads, _ = x.shape
    chunk = min(CHUNK, max(1, length))
    per_chunk = torch.sym_max(1, batch * heads * chunk * chunk)  # not max: any batch, where it is not known yet
    return cast(int, chunk * torch.sym_max(1, BLOCK_ELEMENTS // per_chunk))


def _cut(tensors: Any, block: slice) -> list[Any]:
    """One block of the sequences, and the numbers per head, in the precision of the state."""
    dtype = compute_dtype(tensors[0])
    return [t if t is None else (t[:, block] if t.dim() > 1 else t).to(dtype) for t in tensors]


def scan_chunks(
    tensors: Any, state_BGNRP: Any, softplus: bool, reverse: bool, states_before: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) of one block, `tensors` as `_cut` gives them, and the state after it, from the state before it.

    states_before: how the state goes from chunk to chunk, as `_step_by_step`.
    """
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
    rate_from_start = (sums[..., first] + rate_BcHQ[..., first, None]).unflatten(2, (groups, per_group))
    from_start = rate_from_start.exp()
    to_end = decay[..., last, :]  # (B, c, G, R, Q), as from_start

    u_BcGRQP = by_chunk(x * dt[..., None]).unflatten(3, (groups, per_group)).permute(0, 1, 3, 4, 2, 5)
    B_BcGQN, C_BcGQN = by_chunk(B).transpose(2, 3), by_chunk(C).transpose(2, 3)
    inside = ((C_BcGQN @ B_BcGQN.mT)[:, :, :, None] * decay) @ u_BcGRQP

    arriving = (u_BcGRQP * to_end[..., None]).transpose(3, 4).flatten(-2)  # (B, c, G, Q, R P)
    contributions = (B_BcGQN.mT @ arriving).unflatten(-1, (per_group, -1))  # (B, c, G, N, R, P)
    rates = rate_from_start[..., last][:, :, :, None, :, None]
    starts, state_BGNRP = states_before(rates, contributions, state_BGNRP, reverse)
    before = (C_BcGQN @ starts.flatten(-2)).unflatten(-1, (per_group, -1))  # (B, c, G, Q, R, P)

    y_BcQGRP = inside.permute(0, 1, 4, 2, 3, 5) + (before * from_start.mT[..., None]).transpose(2, 3)
    y_BLHP = y_BcQGRP.flatten(3, 4).flatten(1, 2)[:, :length]
    return y_BLHP if D is None else y_BLHP + D[:, None] * x, state_BGNRP


def _step_by_step(rates: Tensor, contributions: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, c, G, N, R, P), and the one after all, from the logarithm of what each lets pass
    and from what it adds."""
    starts = [state] * rates.shape[1]
    steps = list(enumerate(zip(rates.exp().unbind(1), contributions.unbind(1))))
    for index, (decay_c, contribution) in reversed(steps) if reverse else steps:
        starts[index] = state
        state = decay_c * state + contribution
    return torch.stack(starts, dim=1), state


def segment_sums(rate: Tensor, reverse: bool) -> Tensor:
    """(..., Q) -> (..., Q, Q): at [i, j] the sum of `rate` over the steps that lead from j to i, -inf if none do.

    Forward these are j+1..i for j <= i, in reverse i..j-1 for j >= i: the transpose of the forward sums, one step on.
    """
    steps = rate.shape[-1]
    later = torch.ones(steps, steps, dtype=torch.bool, device=rate.device).tril(-1)
    rows = (rate.roll(1, -1) if reverse else rate)[..., None].expand(*rate.shape, steps)
    sums = rows.masked_fill(~later, 0).cumsum(-2).masked_fill(later.mT, -math.inf)
    return sums.mT if reverse else sums


_TENSORS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? dt_bias"
register(
    f"chunked_ssd({_TENSORS}, bool softplus, bool reverse, bool keep) -> (Tensor, Tensor)",
    below_autocast(_forward),
    _forward_shapes,
    device=ANY_DEVICE,
)
register(
    f"chunked_ssd_backward(Tensor grad, {_TENSORS}, Tensor starts, bool softplus, bool reverse)"
    f" -> ({', '.join(['Tensor'] * 7)})",
    below_autocast(_backward),
    _backward_shapes,
    device=ANY_DEVICE,
)
differentiate("chunked_ssd", _differentiate, _save)
