"""Mamba2's scan by matrix products, fast on any device (state-space duality, arXiv 2405.21060, section 6).

Inside a chunk of Q positions the scan is a masked attention: y_i = sum_j decay(j -> i) <C_i, B_j> dt_j x_j. Only the
state passes from chunk to chunk. Each decay is the exponential of a sum over the positions between j and i. These sums
are added up directly, because differences of running sums would lose small steps behind a large one. No exponent is
positive.

The sequence is cut into blocks of chunks, which bound the memory. Only the state before each block is kept. The
backward pass computes a block again and lets autograd differentiate it. The reverse direction mirrors masks and sums,
not data.
Shape suffixes: B batch, L positions, c chunks, Q positions in a chunk, H heads, G groups, R heads of a group, P
channels of a head, N states.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import SSD_TENSORS, SSDInputs
from ops.operators import ANY_DEVICE, autograd_in_kernel, differentiate, empty_or_nothing, register
from ops.precision import below_autocast, compute_dtype

CHUNK = 64
BLOCK_ELEMENTS = 1 << 21  # decays (Q, Q) of all heads worked on at once; a few such buffers are alive: 8 MiB in float32


def ssd_scan(inputs: SSDInputs) -> Tensor:
    """The scan of `ops.ssd_scan_fn` by chunks; differentiable once."""
    return torch.ops.mamba_mae.chunked_ssd(*inputs, False)[0]


def _forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    """out (B, L, H, P), and with `keep` the states before each block (blocks, B, G, N, R, P)."""
    *given, keep = arguments
    inputs = SSDInputs(*given)
    x, dtype = inputs.x, compute_dtype(inputs.x)
    out, starts = x.new_empty(x.shape), _new_starts(inputs, keep)
    state = x.new_zeros(x.shape[0], *_state_shape(inputs), dtype=dtype)
    for index, block in enumerate(_blocks(inputs)):
        if keep:
            starts[index] = state
        out[:, block], state = scan_chunks(_cut(inputs, block).to(dtype), state, _step_by_step)
    return out, starts


def _backward(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, starts, softplus, reverse = arguments
    inputs = SSDInputs(*tensors, dt_softplus=softplus, reverse=reverse)
    dtype = compute_dtype(inputs.x)
    totals = [None if t is None else t.new_zeros(t.shape, dtype=dtype) for t in tensors]
    state_grad = starts.new_zeros(starts.shape[1:])
    for block, start in reversed(list(zip(_blocks(inputs), starts))):
        *cut, _, _ = _cut(inputs, block).to(dtype)
        leaves: list[Any] = [None if t is None else t.detach().requires_grad_() for t in cut]
        start = start.detach().requires_grad_()
        with autograd_in_kernel():
            results = scan_chunks(SSDInputs(*leaves, dt_softplus=softplus, reverse=reverse), start, _step_by_step)
        present = [*(leaf for leaf in leaves if leaf is not None), start]
        *gradients, state_grad = torch.autograd.grad(results, present, (grad[:, block].to(dtype), state_grad))
        for total, gradient in zip([total for total in totals if total is not None], gradients):
            part = total[:, block] if total.dim() > 1 else total  # a sequence, or one number per head
            part += gradient
    return tuple(grad.new_empty(0) if total is None else total.to(t.dtype) for t, total in zip(tensors, totals))


def _forward_shapes(*arguments: Any) -> tuple[Tensor, Tensor]:
    *given, keep = arguments
    inputs = SSDInputs(*given)
    return inputs.x.new_empty(inputs.x.shape), _new_starts(inputs, keep)


def _backward_shapes(grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    *tensors, _, _, _ = arguments
    return tuple(empty_or_nothing(t, grad) for t in tensors)


def _new_starts(inputs: SSDInputs, keep: bool) -> Tensor:
    x = inputs.x
    blocks = -(-x.shape[1] // _block_length(x)) if keep else 0
    return x.new_empty(blocks, x.shape[0], *_state_shape(inputs), dtype=compute_dtype(x))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.softplus, ctx.reverse, _ = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor, unused: None) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors  # read once: activation checkpointing allows no second time
    gradients = torch.ops.mamba_mae.chunked_ssd_backward(grad, *tensors, ctx.softplus, ctx.reverse)
    return *(None if t is None else gradient for t, gradient in zip(tensors, gradients)), None, None, None


def _state_shape(inputs: SSDInputs) -> tuple[int, int, int, int]:
    """(G, N, R, P)."""
    (heads, width), (groups, states) = inputs.x.shape[2:], inputs.B.shape[2:]
    return groups, states, heads // groups, width


def _blocks(inputs: SSDInputs) -> list[slice]:
    """Positions of each block, in the order of the scan."""
    length, step = inputs.x.shape[1], _block_length(inputs.x)
    blocks = [slice(at, min(at + step, length)) for at in range(0, length, step)]
    return blocks[::-1] if inputs.reverse else blocks


def _block_length(x: Tensor) -> int:
    """Positions of a block: a multiple of the chunk."""
    batch, length, heads, _ = x.shape
    chunk = min(CHUNK, max(1, length))
    per_chunk = torch.sym_max(1, batch * heads * chunk * chunk)  # max does not work on a symbolic batch
    return cast(int, chunk * torch.sym_max(1, BLOCK_ELEMENTS // per_chunk))


def _cut(inputs: SSDInputs, block: slice) -> SSDInputs:
    """One block of the sequences; what belongs to a head stays."""
    x, dt, B, C = (t[:, block] for t in (inputs.x, inputs.dt, inputs.B, inputs.C))
    return inputs._replace(x=x, dt=dt, B=B, C=C)


def scan_chunks(
    inputs: SSDInputs, state_BGNRP: Tensor | None, pass_states: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """y (B, L, H, P) of one block in the precision of the state, and the state after it, from the state before it.

    pass_states: how the state passes from chunk to chunk, with the arguments of `_step_by_step`.
    """
    x, _, A, B, C, D, _, _, reverse = inputs
    length, (groups, _, per_group, _) = x.shape[1], _state_shape(inputs)
    chunk = min(CHUNK, length)
    chunks = math.ceil(length / chunk)
    first, last = (-1, 0) if reverse else (0, -1)  # the first and last position of a chunk in the order of the scan

    def by_chunk(sequence: Tensor) -> Tensor:
        """(B, L, ...) -> (B, c, Q, ...). Padding has a step size of 0, which leaves the state unchanged."""
        padding = (0, 0) * (sequence.dim() - 2) + (0, chunks * chunk - length)
        return F.pad(sequence, padding).unflatten(1, (chunks, chunk))

    dt = inputs.step_sizes()
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
    starts, state_after = pass_states(rates, contributions, state_BGNRP, reverse)
    before = (C_BcGQN @ starts.flatten(-2)).unflatten(-1, (per_group, -1))  # (B, c, G, Q, R, P)

    y_BcQGRP = inside.permute(0, 1, 4, 2, 3, 5) + (before * from_start.mT[..., None]).transpose(2, 3)
    y_BLHP = y_BcQGRP.flatten(3, 4).flatten(1, 2)[:, :length]
    return y_BLHP if D is None else y_BLHP + D[:, None] * x, state_after


def _step_by_step(rates: Tensor, contributions: Tensor, state: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (B, c, G, N, R, P), and the state after the last chunk.

    rates: the logarithm of each chunk's decay; contributions: what each chunk adds; state: before the first chunk.
    """
    starts = [state] * rates.shape[1]
    steps = list(enumerate(zip(rates.exp().unbind(1), contributions.unbind(1))))
    for index, (decay_c, contribution) in reversed(steps) if reverse else steps:
        starts[index] = state
        state = decay_c * state + contribution
    return torch.stack(starts, dim=1), state


def segment_sums(rate: Tensor, reverse: bool) -> Tensor:
    """(..., Q) -> (..., Q, Q): at [i, j] the sum of `rate` over the steps that lead from j to i, -inf if none do.

    Forward, these are the steps j+1..i for j <= i; in reverse, the steps i..j-1 for j >= i. The sums in reverse are the
    transpose of the forward sums of `rate` shifted by one step.
    """
    steps = rate.shape[-1]
    later = torch.ones(steps, steps, dtype=torch.bool, device=rate.device).tril(-1)
    rows = (rate.roll(1, -1) if reverse else rate)[..., None].expand(*rate.shape, steps)
    sums = rows.masked_fill(~later, 0).cumsum(-2).masked_fill(later.mT, -math.inf)
    return sums.mT if reverse else sums


register(
    f"chunked_ssd({SSD_TENSORS}, bool softplus, bool reverse, bool keep) -> (Tensor, Tensor)",
    below_autocast(_forward),
    _forward_shapes,
    device=ANY_DEVICE,
)
register(
    f"chunked_ssd_backward(Tensor grad, {SSD_TENSORS}, Tensor starts, bool softplus, bool reverse)"
    f" -> ({', '.join(['Tensor'] * 7)})",
    below_autocast(_backward),
    _backward_shapes,
    device=ANY_DEVICE,
)
differentiate("chunked_ssd", _gradients, _save)
