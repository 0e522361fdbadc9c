"""Which backend computes an operation: by name, or the fastest that can with "auto". The choice is logged once."""

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from ops.cuda import backend as cuda
from ops.reference.bimamba import Direction
from ops.triton import backend as triton

logger = logging.getLogger(__name__)

Backend = Literal["auto", "reference", "chunked", "cpu", "triton", "cuda", "portable"]
Obstacle = Callable[[], str | None]
"""Why a backend cannot take a call, with the fix; None if it can."""
Function = TypeVar("Function")

SLOW_ON_GPU = {  # operations that need a fused kernel, ours or mamba_ssm's
    "selective scan": "a training step launches tens of thousands of small kernels and may be no faster than on a CPU"
}

_only_portable = False


@contextmanager
def portable_operators() -> Iterator[None]:
    """Every function of ops uses only operators that PyTorch ships, whatever backend is asked for.

    What is traced inside this context runs without this project. The whole process is affected, and kernels are faster:
    use it for exporting only.
    """
    global _only_portable
    before, _only_portable = _only_portable, True
    try:
        yield
    finally:
        _only_portable = before


def only_portable() -> bool:
    """Whether the code runs inside `portable_operators`."""
    return _only_portable


def available_backends() -> list[str]:
    """Names that `backend=` accepts on this machine, besides "auto" and "portable", whose operators are for export.
    Compiles the CPU kernels if there are none yet."""
    names = ["reference", "chunked"]
    if cpu_library.problem() is None:
        names.append("cpu")
    if torch.cuda.is_available():
        if triton.unavailable(torch.empty(0, device="cuda")) is None:
            names.append("triton")
        if not any(map(cuda.import_problem, (cuda.SCAN_MODULE, cuda.CONV_MODULE))):
            names.append("cuda")
    return names


def choose(
    operation: str,
    functions: dict[str, Function],
    backend: str,
    x: Tensor,
    gpu_obstacles: dict[str, Obstacle],
    gpu_order: tuple[str, ...] = ("cuda", "triton"),
) -> Function:
    """The function of `functions` that computes `operation` on x. Raises ValueError if `backend` is unknown or cannot.

    gpu_order: the fused backends that "auto" tries on a GPU.
    """
    if _only_portable:
        return functions["portable"]
    obstacles: dict[str, Obstacle] = {"cpu": lambda: cpu.unavailable(x), **gpu_obstacles}
    if backend == "auto":
        fused = {"cpu": ("cpu",), "cuda": gpu_order}.get(x.device.type, ())
        tried = [(name, obstacles[name]() or (triton.not_enabled() if name == "triton" else None)) for name in fused]
        name = next((name for name, obstacle in tried if obstacle is None), "chunked")
        reasons = [obstacle for _, obstacle in tried if obstacle] or [f"no fused kernel for {x.device.type}"]
        log_choice(operation, name, x.device.type, "; ".join(reasons) if name == "chunked" else None)
        return functions[name]
    if backend not in functions:
        raise ValueError(f'unknown backend "{backend}", known are auto, {", ".join(functions)}')
    if obstacle := obstacles.get(backend, lambda: None)():
        raise ValueError(obstacle)
    return functions[backend]


def wants_plain(backend: str) -> bool:
    """Whether only operators that PyTorch ships are wanted. They are differentiable twice."""
    return _only_portable or backend == "reference"


def wants_cpu_mixer(backend: str, weights: Direction) -> bool:
    """Whether the CPU's fused mixer is wanted and can convolve with these weights."""
    return not _only_portable and backend in ("auto", "cpu") and weights.conv_weight.shape[1] <= cpu.CONV_MAX_WIDTH


def wants_triton(backend: str, x: Tensor) -> bool:
    """Whether the Triton kernels are wanted: by name, or by "auto" if the environment enables them and mamba_ssm's scan
    cannot run on this GPU."""
    if _only_portable or backend not in ("auto", "triton"):
        return False
    if backend == "triton":
        return True
    return x.is_cuda and triton.not_enabled() is None and cuda.unavailable(cuda.SCAN_MODULE, x) is not None


@torch.compiler.assume_constant_result  # torch.compile calls this while it traces a model
def log_choice(operation: str, name: str, device: str, obstacle: str | None = None) -> None:
    """Log once which backend computes `operation`, and why no fused one does: a warning where that is slow."""
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
    logger.warning("%s", triton.UNVERIFIED)
