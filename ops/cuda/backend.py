"""The fused CUDA kernels of mamba_ssm and causal_conv1d, imported only when called.

Their kernels run forward only, so the reverse direction flips inputs and output around the call. This file also
arranges the types and strides that they require.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ops.arguments import ConvInputs, ScanInputs

INSTALL = "pip install --no-build-isolation -r requirements-cuda.txt"
SCAN_MODULE = "mamba_ssm.ops.selective_scan_interface"
CONV_MODULE = "causal_conv1d"
EXTENSIONS = {SCAN_MODULE: "selective_scan_cuda", CONV_MODULE: "causal_conv1d_cuda"}  # compiled, beside the packages
PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)
CONV_WIDTHS = (2, 3, 4)


@functools.cache
def import_problem(module: str) -> str | None:
    """Why `module` or its compiled extension cannot be imported, or None.

    Both are tried: newer packages can be imported without their extension and fail in the first call.
    """
    try:
        importlib.import_module(module)
        importlib.import_module(EXTENSIONS.get(module, module))
    except Exception as error:  # an extension built for another torch raises many types of exception
        return f"{type(error).__name__}: {error}"
    return None


def unavailable(module: str, x: Tensor, width: int | None = None) -> str | None:
    """Why the kernel of `module` cannot take x (and a convolution of `width`), with the fix; None if it can."""
    if not x.is_cuda:
        return f'backend "cuda" takes CUDA tensors, got one on {x.device}: move it or use backend="auto"'
    if x.dtype not in PRECISIONS:
        return f'backend "cuda" computes in float32, float16 or bfloat16, got {x.dtype}: use backend="chunked"'
    if width is not None and width not in CONV_WIDTHS:
        return f'backend "cuda" has kernels of width {CONV_WIDTHS}, got {width}: use backend="chunked"'
    problem = import_problem(module)
    return problem and f'backend "cuda" needs {module.split(".")[0]} ({problem}): {INSTALL}'


def load(module: str, name: str) -> Callable[..., Any]:
    """The function `name` of `module`. Raises ValueError, with the install command, if it cannot be imported."""
    problem = import_problem(module)
    if problem:
        raise ValueError(f'backend "cuda" needs {module.split(".")[0]} ({problem}): {INSTALL}')
    return getattr(importlib.import_module(module), name)


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn` by mamba_ssm's kernel, which needs u, delta, z, B_t, C_t in one precision."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse = inputs
    kernel = load(SCAN_MODULE, "selective_scan_fn")

    def sequence(x: Tensor) -> Tensor:
        x = x.to(u.dtype)
        return x.flip(-1) if reverse else x

    out, last = kernel(
        sequence(u),
        sequence(delta),
        A.float(),
        sequence(B) if B.dim() > 2 else B.float(),
        sequence(C) if C.dim() > 2 else C.float(),
        D=None if D is None else D.float(),
        z=None if z is None else sequence(z),
        delta_bias=None if delta_bias is None else delta_bias.float(),
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
    return out.flip(-1) if reverse else out, last


def causal_conv1d(inputs: ConvInputs) -> Tensor:
    """The convolution of `ops.causal_conv1d_fn` by causal_conv1d's kernel."""
    x, weight, bias, seq_idx, initial_states, activation, reverse = inputs
    kernel = load(CONV_MODULE, "causal_conv1d_fn")
    if reverse:
        x, seq_idx = x.flip(-1), None if seq_idx is None else seq_idx.flip(-1)
    if not inputs.is_plain():
        x = _channel_last(x)  # the kernel takes states and sequence indices in this layout only
        initial_states = None if initial_states is None else _channel_last(initial_states.to(x.dtype))
    elif x.stride(1) == 1 and (x.stride(0) % 8 or x.stride(2) % 8):
        x = x.contiguous()  # the channel-last kernel reads 8 channels at once
    out = kernel(
        x,
        weight,
        bias,
        seq_idx=None if seq_idx is None else seq_idx.to(torch.int32),
        initial_states=initial_states,
        activation=activation,
    )
    return out.flip(-1) if reverse else out


def _channel_last(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)
