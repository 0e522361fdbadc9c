"""The Triton kernels behind the signatures of ops: float32, bfloat16 and float16 in and out, the state in float32.

Triton and the kernels are imported on the first call that could use them. No GPU has run them yet, so backend="auto"
uses them only with MAMBA_MAE_TRITON=1.
Shape suffixes: B batch, L tokens, x twice the inner width I.
"""

import functools
import os

import torch
from torch import Tensor

from ops.arguments import ConvInputs, ScanInputs
from ops.chunked import conv as chunked_conv
from ops.chunked import scan as chunked_scan
from ops.cpu.add_norm import cos_sin
from ops.reference.bimamba import Direction
from ops.triton.host import DEVICE_TYPE

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
MAX_STATES = 64
CONV_MAX_WIDTH = 4  # as in ops/triton/kernels/conv.py
OLDEST = (7, 5)  # compute capability of NVIDIA GPUs that Triton compiles for
SWITCH = "MAMBA_MAE_TRITON"
# To be removed with the first results file of benchmarks/bench_gpu.py.
UNVERIFIED = "Triton kernels are verified in the interpreter and by compilation only, not yet on a GPU"
INSTALL = "pip install -r requirements.txt on a Linux machine brings it with torch"


@torch.compiler.assume_constant_result  # torch.compile calls this while it traces a model
def problem(device: torch.device) -> str | None:
    """Why the kernels cannot run on `device`, with the fix; None if they can."""
    if missing := import_problem():
        return f'backend "triton" needs Triton ({missing}): {INSTALL}'
    too_old = device_problem(device)
    return too_old and f'backend "triton": {too_old}; use backend="chunked"'


@torch.compiler.assume_constant_result
def not_enabled() -> str | None:
    """Why "auto" does not use the kernels even where they can run; None if the environment enables them."""
    return None if os.environ.get(SWITCH) == "1" else f"Triton kernels that no GPU has run yet: {SWITCH}=1 tries them"


@functools.cache
def import_problem() -> str | None:
    """Why the kernels cannot be imported, or None."""
    try:
        from ops.triton import add_norm, bimamba, block, patches, scan_operator  # noqa: F401
    except Exception as error:  # a Triton for another Python, torch or system raises many types of exception
        return f"{type(error).__name__}: {error}"
    return None


@functools.cache
def device_problem(device: torch.device) -> str | None:
    """Why kernels cannot run on a GPU, or None. AMD's GPUs have no compute capability of this kind."""
    if device.type != "cuda" or torch.version.hip:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        own, oldest = (".".join(map(str, version)) for version in (capability, OLDEST))
        return f"{torch.cuda.get_device_name(device)} has compute capability {own}, Triton needs {oldest}"
    return None


def unavailable(x: Tensor, states: int | None = None, width: int | None = None) -> str | None:
    """Why the kernels cannot take x (a scan of `states`, a convolution of `width`), with the fix; None if they can."""
    if x.device.type != DEVICE_TYPE:
        return f'backend "triton" takes CUDA tensors, got one on {x.device}: move it or use backend="auto"'
    if x.dtype not in PRECISIONS:
        return f'backend "triton" computes in float32, bfloat16 or float16, got {x.dtype}: use backend="chunked"'
    if states is not None and states > MAX_STATES:
        return f'backend "triton" has kernels of up to {MAX_STATES} states, got {states}: use backend="chunked"'
    if width is not None and width > CONV_MAX_WIDTH:
        return f'backend "triton" has kernels of width 1 to {CONV_MAX_WIDTH}, got {width}: use backend="chunked"'
    return problem(x.device)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The precision that autocast asks for on the device of x; None without autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def selective_scan(inputs: ScanInputs) -> tuple[Tensor, Tensor]:
    """The scan of `ops.selective_scan_fn` by the kernels, or by chunks if B or C is constant in time."""
    if inputs.has_constant_matrix():
        return chunked_scan.selective_scan(inputs)
    from ops.triton import scan_operator

    out, last, _ = scan_operator.scan(*inputs)
    return out, last


def causal_conv1d(inputs: ConvInputs) -> Tensor:
    """The convolution of `ops.causal_conv1d_fn` by the kernel, or in plain PyTorch for initial states and packed
    sequences."""
    if not inputs.is_plain():
        return chunked_conv.causal_conv1d(inputs)
    from ops.triton import conv

    return conv.convolve(inputs.x, inputs.weight, inputs.bias, inputs.activation is not None, inputs.reverse)


def takes_mixer(xz: Tensor, weights: Direction) -> bool:
    """Whether the kernels compute a mixer of this input and these weights."""
    return unavailable(xz, weights.A.shape[1], weights.conv_weight.shape[1]) is None


def bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
    """`ops.bimamba_fn` for what `takes_mixer` accepts."""
    from ops.triton import bimamba

    return bimamba.bimamba(xz_BLx, forward, backward, out_weight)


def takes_sum(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None) -> bool:
    """Whether the kernel computes the sum, rotation and norm before a mixer."""
    is_float32 = residual is None or residual.dtype == torch.float32
    is_constant = rotation is None or (rotation.dtype == torch.complex64 and not rotation.requires_grad)
    return is_float32 and is_constant and unavailable(hidden) is None


def add_norm(
    hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor, eps: float, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`ops.add_norm_fn` for what `takes_sum` accepts."""
    from ops.triton import add_norm

    dtype = autocast_dtype(hidden) or weight.dtype
    return add_norm.add_norm(hidden, residual, cos_sin(rotation), weight, scale, eps, dtype)


def takes_block(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, in_weight: Tensor,
                weights: Direction) -> bool:  # fmt: skip
    """Whether one operator computes the whole block: in float32, or in the precision of autocast."""
    dtype = autocast_dtype(hidden) or in_weight.dtype
    return (
        dtype in PRECISIONS
        and in_weight.dtype == torch.float32
        and takes_sum(hidden, residual, rotation)
        and takes_mixer(hidden, weights)
    )


def bimamba_block(
    hidden: Tensor,
    residual: Tensor | None,
    rotation: Tensor | None,
    norm_weight: Tensor,
    eps: float,
    scale: Tensor | None,
    in_weight: Tensor,
    forward: Direction,
    backward: Direction,
    out_weight: Tensor,
) -> tuple[Tensor, Tensor]:
    """`ops.bimamba_block_fn` for what `takes_block` accepts."""
    from ops.triton import bimamba, block

    dtype = autocast_dtype(hidden) or torch.float32
    weights = in_weight.to(dtype), *bimamba.stack_weights(forward, backward, out_weight, dtype)
    return block.block(hidden, residual, cos_sin(rotation), norm_weight, scale, *weights, eps)[:2]


def takes_volume(volume: Tensor, *others: Tensor) -> bool:
    """Whether the kernels can read patches of this volume and compute on `others`. The volume must be float32 and need
    no gradient."""
    readable = volume.dtype == torch.float32 and not volume.requires_grad
    return readable and all(unavailable(x) is None for x in (volume, *others))


def gather_patches(volume: Tensor, ids: Tensor | None, patch_size: int, contrasts_first: bool) -> Tensor:
    """`ops.gather_patches_fn` for what `takes_volume` accepts, in the autocast precision, which saves a copy."""
    from ops.triton import patches

    if ids is None:
        tokens = volume.shape[2:].numel() // patch_size**3
        ids = torch.arange(tokens, device=volume.device).expand(volume.shape[0], tokens)
    return patches.gather(volume, ids, patch_size, contrasts_first, autocast_dtype(volume) or volume.dtype)


def patch_error(pred: Tensor, volume: Tensor, ids: Tensor, patch_size: int, normalise: bool) -> Tensor:
    """`ops.patch_error_fn` for what `takes_volume` accepts."""
    from ops.triton import patches

    return patches.error(pred, volume, ids, patch_size, normalise)[0]
