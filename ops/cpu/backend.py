"""The fused CPU kernels behind the signatures of ops: float32 and bfloat16 in and out, the state always in float32."""

from typing import Any

import torch
from torch import Tensor

from ops.chunked import conv
from ops.chunked import scan as chunked
from ops.cpu import conv as cpu_conv
from ops.cpu import library as cpu_library
from ops.cpu import scan as cpu_scan

PRECISIONS = (torch.float32, torch.bfloat16)
CONV_MAX_WIDTH = 16  # of ops/cpu/csrc/conv.cpp


def unavailable(x: Tensor) -> str | None:
    """Why the CPU kernels cannot take x, with the fix; None if they can. Compiles them on the first call."""
    if x.device.type != "cpu":
        return f'backend "cpu" takes CPU tensors, got one on {x.device}: use backend="auto"'
    if x.dtype not in PRECISIONS:
        return f'backend "cpu" computes in float32 or bfloat16, got {x.dtype}: use backend="chunked"'
    problem = cpu_library.problem()
    return problem and f'backend "cpu" has no kernels here: {problem}'


def wants_half() -> bool:
    """Whether autocast asks for bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


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
    """The scan of `ops.selective_scan_fn` by the fused kernel; B or C constant in time, unused by Mamba, by chunks."""
    if B.dim() == 2 or C.dim() == 2:
        return chunked.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, reverse=reverse
        )
    out, last, _ = cpu_scan.scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse, False)
    return (out, last.detach()) if return_last_state else out


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
    """The convolution of `ops.causal_conv1d_fn` by the fused kernel; states and packed sequences by plain PyTorch."""
    states = initial_states is not None or return_final_states
    if seq_idx is not None or states or weight.shape[1] > CONV_MAX_WIDTH:
        return conv.causal_conv1d(
            x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation, reverse=reverse
        )
    return cpu_conv.convolve(x, weight, bias, activation is not None, reverse)
