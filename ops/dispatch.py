"""Which implementation computes a scan or a convolution. The maths never changes with the backend, only the speed."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops import portable
from ops.arguments import check_conv, check_scan, check_ssd
from ops.chunked import conv
from ops.chunked import scan as chunked
from ops.chunked import ssd as ssd_chunked
from ops.cpu import add_norm as cpu_add_norm
from ops.cpu import backend as cpu
from ops.cpu import bimamba as cpu_bimamba
from ops.cpu import block as cpu_block
from ops.cpu import library as cpu_library
from ops.cpu import patches as cpu_patches
from ops.cpu import resample as cpu_resample
from ops.cuda import scan as cuda
from ops.cuda import ssd as ssd_cuda
from ops.reference import add_norm, patches, resample, ssd
from ops.reference import scan as reference
from ops.reference.bimamba import Direction, one_by_one, side_by_side
from ops.triton import backend as gpu

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "chunked", "cpu", "triton", "cuda", "portable"]

SLOW_ON_GPU = {  # without a kernel of ours or of mamba_ssm
    "selective scan": "a training step launches tens of thousands of small kernels and may be no faster than on a CPU"
}

_SCANS: dict[str, Callable[..., Any]] = {
    "reference": reference.selective_scan,
    "chunked": chunked.selective_scan,
    "cpu": cpu.selective_scan,
    "triton": gpu.selective_scan,
    "cuda": cuda.selective_scan,
    "portable": portable.selective_scan,
}
_CONVS: dict[str, Callable[..., Any]] = {
    "reference": reference.causal_conv1d,
    "chunked": conv.causal_conv1d,
    "cpu": cpu.causal_conv1d,
    "triton": gpu.causal_conv1d,
    "cuda": cuda.causal_conv1d,
    "portable": reference.causal_conv1d,
}
_SSDS: dict[str, Callable[..., Any]] = {
    "reference": ssd.ssd_scan,
    "chunked": ssd_chunked.ssd_scan,
    "cpu": ssd_chunked.ssd_scan,  # matrix products already: no kernel of its own
    "triton": ssd_chunked.ssd_scan,
    "cuda": ssd_cuda.ssd_scan,
    "portable": portable.ssd_scan,
}
_only_portable = False


@contextmanager
def portable_operators() -> Iterator[None]:
    """Every function of ops in operators that PyTorch ships, whatever backend is asked for, so that what is traced here
    runs without this project. For exporting: the whole process is affected, and kernels are faster."""
    global _only_portable
    before, _only_portable = _only_portable, True
    try:
        yield
    finally:
        _only_portable = before


def available_backends() -> list[str]:
    """Names that `backend=` accepts on this machine, besides "auto" and "portable", whose operators are for export.
    Compiles the CPU kernels if there are none yet."""
    compiled = ["cpu"] if cpu_library.problem() is None else []
    fused = torch.cuda.is_available() and not any(map(cuda.import_problem, (cuda.SCAN_MODULE, cuda.CONV_MODULE)))
    ours = torch.cuda.is_available() and gpu.unavailable(torch.empty(0, device="cuda")) is None
    return ["reference", "chunked", *compiled, *(["triton"] if ours else []), *(["cuda"] if fused else [])]


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
) -> Any:
    """The selective scan of Mamba, mamba_ssm's signature on any device: out (batch, dim, length) in u's precision.

    u, delta, z (batch, dim, length), best as transposed views of channel-last memory, which `out` is too;
    A (dim, states), D and delta_bias (dim,); B, C (batch, states, length), (batch, groups, states, length) where
    channel i reads group i // (dim / groups), or constant (dim, states). The state is float32, float64 for float64 u.
    reverse: run from the last position to the first; every output stays at its position.
    return_last_state: also the state after the last step (batch, dim, states), cut from the gradient as in mamba_ssm.
    Raises ValueError for shapes that do not fit, complex A, and a backend that is unknown or cannot run here.
    """
    check_scan(u, delta, A, B, C, D, z, delta_bias)
    obstacles = {
        "triton": lambda: gpu.unavailable(u, states=A.shape[1]),
        "cuda": lambda: cuda.unavailable(cuda.SCAN_MODULE, u),
    }
    run = _choose("selective scan", _SCANS, backend, u, obstacles)
    return run(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, reverse=reverse)


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
) -> Any:
    """Causal depthwise convolution, causal_conv1d's signature on any device: out (batch, dim, length) in x's precision.

    x (batch, dim, length), best as a transposed view of channel-last memory, which `out` is too; weight (dim, width),
    its last tap meeting the position itself; bias (dim,); activation None, "silu" or "swish".
    seq_idx (batch, length): packed sequences do not see each other, a negative index marks padding and gives zero.
    initial_states (batch, dim, width - 1): what came before x, oldest first, in the order of the walk;
    return_final_states: also the last width - 1 inputs of the walk, written to final_states_out if given.
    reverse: walk from the last position to the first, so that an output sees only later inputs, in place.
    Raises ValueError for arguments that do not fit and a backend that is unknown or cannot run here.
    """
    check_conv(x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation)
    width = weight.shape[1]
    obstacles = {
        "triton": lambda: gpu.unavailable(x, width=width),
        "cuda": lambda: cuda.unavailable(cuda.CONV_MODULE, x, width),
    }
    run = _choose("causal convolution", _CONVS, backend, x, obstacles)
    return run(
        x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation, reverse=reverse
    )


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
    check_ssd(x, dt, A, B, C, D, dt_bias)
    obstacles = {"triton": lambda: gpu.unavailable(x), "cuda": lambda: ssd_cuda.unavailable(x, B)}
    run = _choose("Mamba2 scan", _SSDS, backend, x, obstacles, on_gpu=("cuda",))
    return run(x, dt, A, B, C, D, dt_bias, dt_softplus, reverse=reverse)


def bimamba_fn(
    xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    """The inner part of a bidirectional Mamba mixer: (B, L, 2I), out_weight (E, I) -> (B, L, E).

    Where both directions have a fused path it is taken; otherwise each runs by the two functions above, which raise
    ValueError for a backend that is unknown or cannot run here.
    """
    if _fused_on_cpu(backend, forward) and cpu.unavailable(xz_BLx) is None:
        _log_once("bidirectional mixer", "cpu", xz_BLx.device.type, None)
        return cpu_bimamba.bimamba(xz_BLx, forward, backward, out_weight)
    device, width = xz_BLx.device.type, forward.conv_weight.shape[1]
    obstacles = cuda.unavailable(cuda.SCAN_MODULE, xz_BLx), cuda.unavailable(cuda.CONV_MODULE, xz_BLx, width)
    if not _only_portable and backend in ("auto", "cuda") and not any(obstacles):
        _log_once("bidirectional mixer", "cuda", device, None)
        return side_by_side(cuda.selective_scan, cuda.causal_conv1d, xz_BLx, forward, backward, out_weight)
    if _ours_on_gpu(xz_BLx, backend) and gpu.takes_mixer(xz_BLx, forward):
        _log_once("bidirectional mixer", "triton", device, None)
        return gpu.bimamba(xz_BLx, forward, backward, out_weight)
    scan = functools.partial(selective_scan_fn, backend=backend)
    return one_by_one(scan, functools.partial(causal_conv1d_fn, backend=backend), xz_BLx, forward, backward, out_weight)


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

    rotation (B or 1, L, E/2): unit complex numbers that turn channel pairs, a constant; scale (B,): a constant factor
    of each sample's hidden. normed is in weight's precision, or in autocast's where that saves a copy.
    """
    summands, run = (hidden_BLE, residual_BLE, rotation), add_norm.add_norm
    if not _plain(backend) and cpu_add_norm.takes(*summands):
        run = cpu_add_norm.add_norm
    elif _ours_on_gpu(hidden_BLE, backend) and gpu.takes_sum(*summands):
        run = gpu.add_norm
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
    """(mixed, total), each (B, L, E): `add_norm_fn`, a projection by in_weight (2I, E) and `bimamba_fn`, of which the
    backward pass computes again what it needs, so that memory holds little but total between the passes."""
    if _fused_on_cpu(backend, forward) and cpu_block.takes(hidden_BLE, residual_BLE, rotation, in_weight):
        _log_once("bidirectional mixer", "cpu", hidden_BLE.device.type, None)
        run = cpu_block.bimamba_block
        weights = in_weight, forward, backward, out_weight
        return run(hidden_BLE, residual_BLE, rotation, norm_weight, eps, scale_B, *weights)
    summands = hidden_BLE, residual_BLE, rotation
    if _ours_on_gpu(hidden_BLE, backend) and gpu.takes_block(*summands, in_weight, forward):
        _log_once("bidirectional mixer", "triton", hidden_BLE.device.type, None)
        weights = in_weight, forward, backward, out_weight
        return gpu.bimamba_block(*summands, norm_weight, eps, scale_B, *weights)

    def parts() -> tuple[Tensor, Tensor]:
        normed, total = add_norm_fn(hidden_BLE, residual_BLE, rotation, norm_weight, eps, scale_B, backend=backend)
        return bimamba_fn(F.linear(normed, in_weight), forward, backward, out_weight, backend=backend), total

    if _only_portable or torch._C._are_functorch_transforms_active():  # torch.func knows no checkpoints
        return parts()
    found = checkpoint(parts, use_reentrant=False, preserve_rng_state=False)  # nothing random is inside
    return cast(tuple[Tensor, Tensor], found)


def gather_patches_fn(
    volume_BCZYX: Tensor, ids_BK: Tensor | None, patch_size: int, *, contrasts_first: bool = False
) -> Tensor:
    """(B, C, Z, Y, X), (B, K) -> (B, K, P): the patches named, counted in raster order, or all; values ordered
    (pz, py, px, c), or contrasts_first (c, pz, py, px). In the autocast precision where that saves a copy."""
    if not _only_portable and cpu_patches.takes(volume_BCZYX):
        return cpu_patches.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)
    if _ours_on_gpu(volume_BCZYX, "auto") and gpu.takes_volume(volume_BCZYX):
        return gpu.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)
    return patches.gather_patches(volume_BCZYX, ids_BK, patch_size, contrasts_first)


def patch_error_fn(
    pred_BKP: Tensor,
    volume_BCZYX: Tensor,
    ids_BK: Tensor,
    patch_size: int,
    normalise: bool = False,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Mean of (pred - target)^2 over all values, (), in float32 at least; its gradient goes to pred_BKP only.

    The target of row (b, k) is patch ids_BK[b, k] of the volume, values ordered (pz, py, px, c); normalise: each patch
    by its own mean and unbiased variance + 1e-6. Targets are never held all at once: they are as large as the volume;
    except by the reference, which is differentiable twice.
    """
    if _ours_on_gpu(volume_BCZYX, backend) and gpu.takes_volume(volume_BCZYX, pred_BKP):
        return gpu.patch_error(pred_BKP, volume_BCZYX, ids_BK, patch_size, normalise)
    run = patches.patch_error_plain if _plain(backend) else patches.patch_error
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
    """`patch_error_fn` of what a linear layer predicts, (): hidden_BKE, weight_PE, bias_P.

    On a CPU some planes of every patch are predicted at a time, errors take the place of their predictions, and the
    layer's gradients are made from them at once: what autograd would keep is as large as the volume, three times.
    """
    layer = hidden_BKE, weight_PE, bias_P
    if not _plain(backend) and cpu_patches.takes(volume_BCZYX, *layer):
        return cpu_patches.linear_patch_error(*layer, volume_BCZYX, ids_BK, patch_size, normalise)
    return patch_error_fn(F.linear(*layer), volume_BCZYX, ids_BK, patch_size, normalise, backend=backend)


def resample_affine_fn(volume_BCZYX: Tensor, back_B34: Tensor) -> Tensor:
    """(B, C, Z, Y, X) -> the same shape: voxel p takes the value at place back[:, :3] p + back[:, 3] of its volume, in
    voxels, (z, y, x), trilinear between voxels and to 0 beyond them. Of data: without a gradient."""
    run = cpu_resample if not _only_portable and cpu_resample.takes(volume_BCZYX) else resample
    return run.resample_affine(volume_BCZYX, back_B34)


def _plain(backend: str) -> bool:
    """Whether nothing but operators that PyTorch ships is wanted; they are differentiable twice."""
    return _only_portable or backend == "reference"


def _fused_on_cpu(backend: str, weights: Direction) -> bool:
    """Whether the CPU's fused mixer is wanted and knows convolutions of this width."""
    return not _only_portable and backend in ("auto", "cpu") and weights.conv_weight.shape[1] <= cpu.CONV_MAX_WIDTH


def _ours_on_gpu(x: Tensor, backend: str) -> bool:
    """Whether the Triton kernels are wanted: by name, or by "auto" where the environment asks for them and mamba_ssm's
    scan cannot run on this GPU."""
    if _only_portable or backend not in ("auto", "triton"):
        return False
    if backend == "triton":
        return True
    return x.is_cuda and gpu.unasked() is None and cuda.unavailable(cuda.SCAN_MODULE, x) is not None


def _choose(
    operation: str,
    table: dict[str, Callable[..., Any]],
    backend: str,
    x: Tensor,
    gpu_obstacles: dict[str, Callable[[], str | None]],
    on_gpu: tuple[str, ...] = ("cuda", "triton"),
) -> Callable[..., Any]:
    """`on_gpu`: the fused backends that "auto" tries there, in this order."""
    if _only_portable:
        return table["portable"]
    obstacles = {"cpu": lambda: cpu.unavailable(x), **gpu_obstacles}
    if backend == "auto":
        fused = {"cpu": ("cpu",), "cuda": on_gpu}.get(x.device.type, ())
        found = [(name, obstacles[name]() or (gpu.unasked() if name == "triton" else None)) for name in fused]
        name = next((name for name, obstacle in found if obstacle is None), "chunked")
        reasons = [obstacle for _, obstacle in found if obstacle] or [f"no fused kernel for {x.device.type}"]
        _log_once(operation, name, x.device.type, "; ".join(reasons) if name == "chunked" else None)
        return table[name]
    if backend not in table:
        raise ValueError(f'unknown backend "{backend}", known are auto, {", ".join(table)}')
    obstacle = obstacles.get(backend, lambda: None)()
    if obstacle:
        raise ValueError(obstacle)
    return table[backend]


@torch.compiler.assume_constant_result  # a compiled model logs while it is traced
def _log_once(operation: str, name: str, device: str, obstacle: str | None) -> None:
    _log(operation, name, device, obstacle)


@functools.cache
def _log(operation: str, name: str, device: str, obstacle: str | None) -> None:
    is_slow, cost = obstacle is not None and device == "cpu" and cpu_library.problem() is not None, ""
    if obstacle is not None and device == "cuda" and operation in SLOW_ON_GPU:
        is_slow, cost = True, f": {SLOW_ON_GPU[operation]}"
    logger.log(
        logging.WARNING if is_slow else logging.INFO,
        "%s on %s: backend %s%s%s", operation, device, name, f" ({obstacle})" if obstacle else "", cost,
    )  # fmt: skip
    if name == "triton":
        _warn_of_triton()


@functools.cache
def _warn_of_triton() -> None:
    logger.warning("%s", gpu.UNVERIFIED)
