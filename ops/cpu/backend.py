"""The fused CPU kernels behind the signatures of ops: float32 and bfloat16 in and out, the state always in float32."""

import torch
from torch import Tensor

from ops.arguments import ConvInputs, ScanInputs
from ops.chunked import conv as chunked_conv
from ops.chunked import scan as chunked_scan
from ops.cpu import conv as cpu_conv
from ops.cpu import library as cpu_library
from ops.cpu import scan as cpu_scan

PRECISIONS = (torch.float32, torch.bfloat16)
CONV_MAX_WIDTH = 16  # as in ops/cpu/csrc/conv.cpp


def unavailable(x: Tensor) -> str | None:
    """Why the CPU kernels cannot take x, with the fix; None if they can. Compiles them on the first call."""
    if x.device.type != "cpu":
        return f'backend "cpu" takes CPU tensors, got one on {x.device}: use backend="auto"'
    if x.dtype not in PRECISIONS:
        return f'backend "cpu" computes in float32 or bfloat16, got {x.dtype}: use backend="chunked"'
    problem = cpu_library.problem()
    return problem and f'backend "cpu" has no kernels here: {problem}'


def wants_bfloat16() -> bool:
    """Whether autocast asks for bfloat16 on the CPU."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn` by the fused kernel, or by chunks if B or C is constant in time."""
    if inputs.has_constant_matrix():
        return chunked_scan.selective_scan(inputs)
    out, last, _ = cpu_scan.scan(*inputs, False)
    return out, last


def causal_conv1d(inputs: ConvInputs) -> Tensor:
    """The convolution of `ops.causal_conv1d_fn` by the fused kernel, or in plain PyTorch for initial states, packed
    sequences and wide kernels."""
    x, weight, bias, _, _, activation, reverse = inputs
    if not inputs.is_plain() or weight.shape[1] > CONV_MAX_WIDTH:
        return chunked_conv.causal_conv1d(inputs)
    return cpu_conv.convolve(x, weight, bias, activation is not None, reverse)
