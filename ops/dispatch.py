"""The functions of ops: check the arguments once, choose a backend, call it.

The backend changes only the speed, never the maths. Shape suffixes: B batch, L tokens, E model width, I inner channels,
x 2I (scan input and gate side by side), C contrasts, Z Y X voxels, K chosen patches, P values per patch; 3 and 4 are
sizes.
"""

import functools
from typing import Literal, cast, overload

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops import checks, portable
from ops.arguments import ConvFunction, ConvInputs, ScanFunction, ScanInputs, SSDFunction, SSDInputs
from ops.backends import Backend, choose, log_choice, only_portable, wants_cpu_mixer, wants_plain, wants_triton
from ops.chunked import conv as chunked_conv
from ops.chunked import scan as chunked_scan
from ops.chunked import ssd as chunked_ssd
from ops.cpu import add_norm as cpu_add_norm
from ops.cpu import backend as cpu
from ops.cpu import bimamba as cpu_bimamba
from ops.cpu import block as cpu_block
from ops.cpu import patches as cpu_patches
from ops.cpu import resample as cpu_resample
from ops.cuda import backend as cuda
from ops.cuda import ssd as cuda_ssd
from ops.reference import add_norm as reference_add_norm
from ops.reference import bimamba as reference_bimamba
from ops.reference import conv as reference_conv
from ops.reference import patches as reference_patches
from ops.reference import resample as reference_resample
from ops.reference import scan as reference_scan
from ops.reference import ssd as reference_ssd
from ops.reference.bimamba import Direction
from ops.triton import backend as triton

_SCANS: dict[str, ScanFunction] = {
    "reference": reference_scan.selective_scan,
    "chunked": chunked_scan.selective_scan,
    "cpu": cpu.selective_scan,
    "triton": triton.selective_scan,
    "cuda": cuda.selective_scan,
    "portable": portable.selective_scan,
}
_CONVS: dict[str, ConvFunction] = {
    "reference": reference_conv.causal_conv1d,
    "chunked": chunked_conv.causal_conv1d,
    "cpu": cpu.causal_conv1d,
    "triton": triton.causal_conv1d,
    "cuda": cuda.causal_conv1d,
    "portable": reference_conv.causal_conv1d,
}
_SSDS: dict[str, SSDFunction] = {
    "reference": reference_ssd.ssd_scan,
    "chunked": chunked_ssd.ssd_scan,
    "cpu": chunked_ssd.ssd_scan,  # matrix products, which need no kernel of ours
    "triton": chunked_ssd.ssd_scan,
    "cuda": cuda_ssd.ssd_scan,
    "portable": portable.ssd_scan,
}


@overload
def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ..., z: Tensor | None = ...,
    delta_bias: Tensor | None = ..., delta_softplus: bool = ..., return_last_state: Literal[False] = ..., *,
    reverse: bool = ..., backend: Backend = ...,
) -> Tensor: ...  # fmt: skip
@overload
def selective_scan_fn(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None = ..., z: Tensor | None = ...,
    delta_bias: Tensor | None = ..., delta_softplus: bool = ..., return_last_state: bool = ..., *,
    reverse: bool = ..., backend: Backend = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
def selective_scan_fn(
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
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Mamba's selective scan, with mamba_ssm's signature, on any device: out (batch, dim, length) in u's precision.

    u, delta, z (batch, dim, length), best as transposed views of channel-last memory, which `out` is too;
    A (dim, states), D and delta_bias (dim,); B, C (batch, states, length), (batch, groups, states, length) where
    channel i reads group i // (dim / groups), or constant (dim, states). The state is float32, float64 for float64 u.
    reverse: run from the last position to the first; every output stays at its position.
    return_last_state: also the state after the last step (batch, dim, states), without a gradient, as in mamba_ssm.
    Raises ValueError for shapes that do not fit, complex A, and a backend that is unknown or cannot run here.
    """
    inputs = ScanInputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)
    out, last_state = scan(inputs, backend)
    return (out, last_state.detach()) if return_last_state else out


def scan(inputs: ScanInputs, backend: Backend) -> tuple[Tensor, Tensor]:
    """`selective_scan_fn` of arguments in one structure: the output and the state after the last step."""
    inputs.check()
    obstacles = {
        "triton": lambda: triton.unavailable(inputs.u, states=inputs.A.shape[1]),
        "cuda": lambda: cuda.unavailable(cuda.SCAN_MODULE, inputs.u),
    }
    return choose("selective scan", _SCANS, backend, inputs.u, obstacles)(inputs)


@overload
def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None = ..., seq_idx: Tensor | None = ...,
    initial_states: Tensor | None = ..., return_final_states: Literal[False] = ...,
    final_states_out: Tensor | None = ..., activation: str | None = ..., *,
    reverse: bool = ..., backend: Backend = ...,
) -> Tensor: ...  # fmt: skip
@overload
def causal_conv1d_fn(
    x: Tensor, weight: Tensor, bias: Tensor | None = ..., seq_idx: Tensor | None = ...,
    initial_states: Tensor | None = ..., return_final_states: bool = ...,
    final_states_out: Tensor | None = ..., activation: str | None = ..., *,
    reverse: bool = ..., backend: Backend = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...  # fmt: skip
def causal_conv1d_fn(
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
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Causal depthwise convolution, with causal_conv1d's signature, on any device: out (batch, dim, length) in x's
    precision.

    x (batch, dim, length), best as a transposed view of channel-last memory, which `out` is too; weight (dim, width),
    whose last tap multiplies the position itself; bias (dim,); activation None, "silu" or "swish".
    seq_idx (batch, length): packed sequences do not see each other; a negative index marks padding and gives zero.
    initial_states (batch, dim, width - 1): the inputs before x, oldest first, in the order of the walk.
    return_final_states: also the last width - 1 inputs of the walk, written to final_states_out if given.
    reverse: walk from the last position to the first: an output sees only itself and later inputs. Every output stays
    at its position.
    Raises ValueError for arguments that do not fit and a backend that is unknown or cannot run here.
    """
    inputs = ConvInputs(x, weight, bias, seq_idx, initial_states, activation, reverse)
    if return_final_states or final_states_out is not None:
        inputs.check_final_states(return_final_states, final_states_out)
    out = conv(inputs, backend)
    if not return_final_states:
        return out
    final = inputs.final_states()
    return out, final if final_states_out is None else final_states_out.copy_(final)


def conv(inputs: ConvInputs, backend: Backend) -> Tensor:
    """`causal_conv1d_fn` of arguments in one structure: the output."""
    inputs.check()
    width = inputs.weight.shape[1]
    obstacles = {
        "triton": lambda: triton.unavailable(inputs.x, width=width),
        "cuda": lambda: cuda.unavailable(cuda.CONV_MODULE, inputs.x, width),
    }
    return choose("causal convolution", _CONVS, backend, inputs.x, obstacles)(inputs)


def ssd_scan_fn(
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
    backend: Backend = "auto",
) -> Tensor:
    """The scan of Mamba2 on any device: out (batch, length, heads, headdim) in x's precision.

    The arguments are those of mamba_ssm's mamba_chunk_scan_combined, in its layouts, without its chunk size: x (batch,
    length, heads, headdim), dt (batch, length, heads), A, D and dt_bias (heads,), A negative, B and C (batch, length,
    groups, states), where head h reads group h // (heads / groups). The state is float32, float64 for float64 x.
    reverse: run from the last position to the first; every output stays at its position.
    Raises ValueError for shapes that do not fit and a backend that is unknown or cannot run here.
    """
    inputs = SSDInputs(x, dt, A, B, C, D, dt_bias, dt_softplus, reverse)
    inputs.check()
    obstacles = {"triton": lambda: triton.unavailable(x), "cuda": lambda: cuda_ssd.unavailable(x, B)}
    return choose("Mamba2 scan", _SSDS, backend, x, obstacles, gpu_order=("cuda",))(inputs)


def mamba_fn(xz_BLx: Tensor, weights: Direction, out_weight: Tensor, *, backend: Backend = "auto") -> Tensor:
    """The inner part of a Mamba mixer that scans from the first token only: (B, L, 2I), out_weight (E, I) -> (B, L, E).

    Raises ValueError for arguments that do not fit and a backend that is unknown or cannot run here.
    """
    checks.check_mixer(xz_BLx, {"weights": weights}, out_weight)
    y_BIL = reference_bimamba.one_direction(*_scan_and_conv(backend), xz_BLx, weights, reverse=False)
    return F.linear(y_BIL.transpose(1, 2), out_weight.to(y_BIL.dtype))


def bimamba_fn(
    xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """The inner part of a bidirectional Mamba mixer: (B, L, 2I), out_weight (E, I) -> (B, L, E).

    A backend with a fused path for both directions takes it. Otherwise the directions run one after the other. Raises
    ValueError for arguments that do not fit and a backend that is unknown or cannot run here.
    """
    checks.check_mixer(xz_BLx, {"forward": forward, "backward": backward}, out_weight)
    return _bimamba(xz_BLx, forward, backward, out_weight, backend)


def _bimamba(xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor, backend: Backend) -> Tensor:
    """`bimamba_fn` of arguments that were checked."""
    device, width = xz_BLx.device.type, forward.conv_weight.shape[1]
    if wants_cpu_mixer(backend, forward) and cpu.unavailable(xz_BLx) is None:
        log_choice("bidirectional mixer", "cpu", device)
        return cpu_bimamba.bimamba(xz_BLx, forward, backward, out_weight)
    obstacles = cuda.unavailable(cuda.SCAN_MODULE, xz_BLx), cuda.unavailable(cuda.CONV_MODULE, xz_BLx, width)
    if not only_portable() and backend in ("auto", "cuda") and not any(obstacles):
        log_choice("bidirectional mixer", "cuda", device)
        kernels = cuda.selective_scan, cuda.causal_conv1d
        return reference_bimamba.side_by_side(*kernels, xz_BLx, forward, backward, out_weight)
    if wants_triton(backend, xz_BLx) and triton.takes_mixer(xz_BLx, forward):
        log_choice("bidirectional mixer", "triton", device)
        return triton.bimamba(xz_BLx, forward, backward, out_weight)
    return reference_bimamba.one_by_one(*_scan_and_conv(backend), xz_BLx, forward, backward, out_weight)


def _scan_and_conv(backend: Backend) -> tuple[ScanFunction, ConvFunction]:
    return functools.partial(scan, backend=backend), functools.partial(conv, backend=backend)


def add_norm_fn(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    weight: Tensor,
    eps: float,
    scale_B: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """(normed, total), each (B, L, E): total = rotate(scale * hidden + residual), in float32 at least, and its RMSNorm.

    rotation (B or 1, L, E/2): unit complex numbers that rotate channel pairs; scale (B,): a factor for each sample.
    Neither gets a gradient. normed is in weight's precision, or in autocast's where that saves a copy.
    Raises ValueError for arguments that do not fit.
    """
    checks.check_sum(hidden_BLE, residual_BLE, rotation, "weight", weight, scale_B)
    return _add_norm(hidden_BLE, residual_BLE, rotation, weight, eps, scale_B, backend)


def _add_norm(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    weight: Tensor,
    eps: float,
    scale_B: Tensor | None,
    backend: Backend,
) -> tuple[Tensor, Tensor]:
    """`add_norm_fn` of arguments that were checked."""
    summands, run = (hidden_BLE, residual_BLE, rotation), reference_add_norm.add_norm
    if not wants_plain(backend) and cpu_add_norm.takes(*summands) and weight.dtype in cpu.PRECISIONS:
        run = cpu_add_norm.add_norm
    elif wants_triton(backend, hidden_BLE) and triton.takes_sum(*summands):
        run = triton.add_norm
    return run(*summands, weight, eps, scale_B)


def bimamba_block_fn(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    norm_weight: Tensor,
    eps: float,
    scale_B: Tensor | None,
    in_weight: Tensor,
    forward: Direction,
    backward: Direction,
    out_weight: Tensor,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """(mixed, total), each (B, L, E): `add_norm_fn`, a projection by in_weight (2I, E) and `bimamba_fn`.

    The backward pass computes again what it needs, so that memory holds little but total between the passes.
    Raises ValueError for arguments that do not fit and a backend that is unknown or cannot run here.
    """
    directions = {"forward": forward, "backward": backward}
    checks.check_block(hidden_BLE, residual_BLE, rotation, norm_weight, scale_B, in_weight, directions, out_weight)
    device, summands = hidden_BLE.device.type, (hidden_BLE, residual_BLE, rotation)
    arguments = *summands, norm_weight, eps, scale_B, in_weight, forward, backward, out_weight
    if wants_cpu_mixer(backend, forward) and cpu_block.takes(*summands, in_weight):
        log_choice("bidirectional mixer", "cpu", device)
        return cpu_block.bimamba_block(*arguments)
    if wants_triton(backend, hidden_BLE) and triton.takes_block(*summands, in_weight, forward):
        log_choice("bidirectional mixer", "triton", device)
        return triton.bimamba_block(*arguments)

    def parts() -> tuple[Tensor, Tensor]:
        normed, total = _add_norm(*summands, norm_weight, eps, scale_B, backend)
        return _bimamba(F.linear(normed, in_weight.to(normed.dtype)), forward, backward, out_weight, backend), total

    if only_portable() or torch._C._are_functorch_transforms_active():  # torch.func does not support checkpoint
        return parts()
    outputs = checkpoint(parts, use_reentrant=False, preserve_rng_state=False)  # `parts` draws no random numbers
    return cast(tuple[Tensor, Tensor], outputs)


def gather_patches_fn(
    volume_BCZYX: Tensor, ids_BK: Tensor | None, patch_size: int, *, contrasts_first: bool = False
) -> Tensor:
    """(B, C, Z, Y, X), (B, K) -> (B, K, P): the patches with these raster numbers, or all of them.

    Values are ordered (pz, py, px, c), or (c, pz, py, px) with contrasts_first. In the autocast precision where that
    saves a copy. Raises ValueError for arguments that do not fit.
    """
    checks.check_patches(volume_BCZYX, ids_BK, patch_size)
    if not only_portable() and cpu_patches.takes(volume_BCZYX):
        return cpu_patches.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)
    if wants_triton("auto", volume_BCZYX) and triton.takes_volume(volume_BCZYX):
        return triton.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)
    return reference_patches.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)


def patch_error_fn(
    pred_BKP: Tensor,
    volume_BCZYX: Tensor,
    ids_BK: Tensor,
    patch_size: int,
    normalise: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Mean of (pred - target)^2 over all values, (), in float32 at least. Its gradient goes to pred_BKP only.

    The target of row (b, k) is patch ids_BK[b, k] of the volume, values ordered (pz, py, px, c). normalise: subtract
    each patch's own mean and divide by the root of its unbiased variance + 1e-6. All targets would be as large as the
    volume; only the reference, which is differentiable twice, holds them at once. Raises ValueError for arguments that
    do not fit.
    """
    checks.check_prediction(pred_BKP, volume_BCZYX, ids_BK, patch_size)
    if wants_triton(backend, volume_BCZYX) and triton.takes_volume(volume_BCZYX, pred_BKP):
        return triton.patch_error(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise)
    run = reference_patches.patch_error_plain if wants_plain(backend) else reference_patches.patch_error
    return run(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise)


def linear_patch_error_fn(
    hidden_BKE: Tensor,
    weight_PE: Tensor,
    bias_P: Tensor,
    volume_BCZYX: Tensor,
    ids_BK: Tensor,
    patch_size: int,
    normalise: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """`patch_error_fn` of the predictions of a linear layer, (): hidden_BKE, weight_PE, bias_P.

    On a CPU a few planes of every patch are predicted at a time. Their errors overwrite the predictions, and the
    layer's gradients are computed from them at once. autograd would keep three tensors as large as the volume. Raises
    ValueError for arguments that do not fit.
    """
    checks.check_layer(hidden_BKE, weight_PE, bias_P, volume_BCZYX, ids_BK, patch_size)
    layer = hidden_BKE, weight_PE, bias_P
    if not wants_plain(backend) and cpu_patches.takes(volume_BCZYX, *layer):
        return cpu_patches.linear_patch_error(*layer, volume_BCZYX, ids_BK, patch_size, normalise)
    pred_BKP = F.linear(hidden_BKE, weight_PE.to(hidden_BKE.dtype), bias_P.to(hidden_BKE.dtype))
    return patch_error_fn(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise, backend=backend)


def resample_affine_fn(volume_BCZYX: Tensor, back_B34: Tensor) -> Tensor:
    """(B, C, Z, Y, X) -> the same shape: voxel p takes the value at back[:, :3] p + back[:, 3] of its volume.

    Positions are in voxels, (z, y, x). Values are trilinear between voxels and fall to 0 beyond the volume. It works on
    data and has no gradient. Raises ValueError for arguments that do not fit.
    """
    checks.check_resampling(volume_BCZYX, back_B34)
    run = cpu_resample if not only_portable() and cpu_resample.takes(volume_BCZYX) else reference_resample
    return run.resample_affine(volume_BCZYX, back_B34.to("cpu", torch.float64))
