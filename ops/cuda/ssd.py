"""mamba_ssm's Triton kernels of Mamba2's scan, imported only when called.

The kernels run forward only, so the reverse direction flips inputs and output around the call.
"""

import math

import torch
from torch import Tensor

from ops.arguments import SSDInputs
from ops.cuda import backend as cuda

MODULE = "mamba_ssm.ops.triton.ssd_combined"
CHUNK = 256  # mamba_ssm's default
LARGEST_OFFSET = 2**31 - 1


def unavailable(x: Tensor, B: Tensor) -> str | None:
    """Why the kernel cannot take x and B, with the fix; None if it can.

    Its offsets are 32-bit numbers that wrap without an error (state-spaces/mamba issue 1015). Tensors that need larger
    ones are refused here.
    """
    obstacle = cuda.unavailable(MODULE, x)
    if obstacle:
        return obstacle
    batch, length, heads, width = x.shape
    states = batch * math.ceil(length / CHUNK) * heads * width * B.shape[3]
    largest = max(states, *(_largest_offset(sequence) for sequence in (x, B)))
    if largest > LARGEST_OFFSET:
        return (
            f'backend "cuda" computes offsets in 32 bits, which x {tuple(x.shape)} with {B.shape[3]} states exceeds: '
            f'use a smaller batch or backend="chunked"'
        )
    return None


def _largest_offset(sequence: Tensor) -> int:
    """The largest offset of an element, in the given memory or in a contiguous copy."""
    strided = sum((size - 1) * stride for size, stride in zip(sequence.shape, sequence.stride()))
    return max(strided, sequence.numel())


def ssd_scan(inputs: SSDInputs) -> Tensor:
    """The scan of `ops.ssd_scan_fn` by mamba_ssm's kernel, which needs x, B and C in one precision."""
    x, dt, A, B, C, D, dt_bias, dt_softplus, reverse = inputs
    kernel = cuda.load(MODULE, "mamba_chunk_scan_combined")

    def sequence(value: Tensor, dtype: torch.dtype) -> Tensor:
        value = value.to(dtype)
        return value.flip(1) if reverse else value

    out = kernel(
        sequence(x, x.dtype),
        sequence(dt, dt.dtype),
        A.float(),
        sequence(B, x.dtype),
        sequence(C, x.dtype),
        CHUNK,
        D=None if D is None else D.float(),
        dt_bias=None if dt_bias is None else dt_bias.float(),
        dt_softplus=dt_softplus,
    )
    return out.flip(1) if reverse else out
