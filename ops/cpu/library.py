"""The compiled CPU kernels as Python functions on tensors. Structures mirror the headers of ops/cpu/csrc.

Shapes: D directions, B batch, L positions, I channels, N states, G groups.
"""

import ctypes
import functools
from ctypes import Structure, c_float, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from ops.cpu.build import BuildError, library_path

MAX_SPLITS = 16  # parts of one sample's work; each has its own partial sums over channels or time


def _fields(*groups: tuple[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((name, kind) for names, kind in groups for name in names.split())


class Sequence(Structure):
    """ops/cpu/csrc/layout.h: struct Sequence"""

    _fields_ = _fields(("data", c_void_p), ("direction batch row", c_int64))

    @classmethod
    def of(cls, x: Tensor | None) -> "Sequence":
        """x is (D, B, L, I), or (B, L, I) for all directions. Channels lie side by side in memory."""
        if x is None:
            return cls(None, 0, 0, 0)
        *direction, batch, row, _ = x.stride()
        return cls(x.data_ptr(), *(direction or (0,)), batch, row)


class Matrix(Structure):
    """ops/cpu/csrc/layout.h: struct Matrix"""

    _fields_ = _fields(("data", c_void_p), ("direction batch group row", c_int64))

    @classmethod
    def of(cls, x_DBGLN: Tensor) -> "Matrix":
        return cls(x_DBGLN.data_ptr(), *x_DBGLN.stride()[:4])


class Scan(Structure):
    """ops/cpu/csrc/scan.h: struct Scan"""

    _fields_ = _fields(
        ("directions batch length channels states groups", c_int64),
        ("bfloat16_io bfloat16_states softplus reverse accumulate threads splits", c_int64),
        ("factor", c_float),
        ("u delta z out", Sequence),
        ("A D bias", c_void_p),
        ("B C", Matrix),
        ("checkpoints last", c_void_p),
        ("dout du ddelta dz", Sequence),
        ("dA dD dbias", c_void_p),
        ("dB dC", Matrix),
    )


class Conv(Structure):
    """ops/cpu/csrc/conv.h: struct Conv"""

    _fields_ = _fields(
        ("directions batch length channels width", c_int64),
        ("bfloat16_io silu reverse accumulate threads splits", c_int64),
        ("x out", Sequence),
        ("weight bias", c_void_p),
        ("dout dx", Sequence),
        ("dweight dbias", c_void_p),
    )


class AddNorm(Structure):
    """ops/cpu/csrc/add_norm.h: struct AddNorm"""

    _fields_ = _fields(
        ("batch length width rotation_batch threads bfloat16_hidden bfloat16_normed", c_int64),
        ("eps", c_float),
        ("hidden normed scale residual rotation weight total dtotal dresidual dweight", c_void_p),
    )


class Patches(Structure):
    """ops/cpu/csrc/patches.h: struct Patches"""

    _fields_ = _fields(
        ("batch kept contrasts patch grid_z grid_y grid_x threads", c_int64),
        ("batch_stride contrast_stride plane_stride line_stride", c_int64),
        ("first_plane planes contrasts_first bfloat16_rows", c_int64),
        ("volume ids rows moments squares", c_void_p),
    )


class Resample(Structure):
    """ops/cpu/csrc/resample.h: struct Resample"""

    _fields_ = _fields(
        ("batch channels z y x threads", c_int64),
        ("back volume out", c_void_p),
    )


STRUCTS: dict[str, type[Structure]] = {
    "scan": Scan, "conv": Conv, "add_norm": AddNorm, "patches": Patches, "resample": Resample,
}  # fmt: skip
KERNELS = (
    *(f"{kernel}_{way}" for kernel in ("scan", "conv", "add_norm") for way in ("forward", "backward")),
    "patches_gather",
    "patches_compare",
    "resample_affine",
)


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled on the first call. Raises BuildError, every time, where that is impossible."""
    return _load()


@torch.compiler.assume_constant_result
def problem() -> str | None:
    """Why there are no kernels on this machine, or None. Compiles them on the first call."""
    return _problem()


@functools.cache
def _problem() -> str | None:
    try:
        library()
    except (BuildError, OSError, ImportError) as error:
        return str(error)
    return None


def _load() -> ctypes.CDLL:
    path = library_path()
    kernels = ctypes.CDLL(str(path))
    try:
        _declare(kernels)
    except AttributeError as error:
        raise BuildError(f"{path} is no library of these kernels, delete it: {error}") from error
    return kernels


def _declare(kernels: ctypes.CDLL) -> None:
    """Give the functions their types. Raises AttributeError if one is missing."""
    sizes = {f"{name}_struct_size": ctypes.sizeof(struct) for name, struct in STRUCTS.items()}
    for name in ("scan_register_width", "scan_chunk", "conv_max_width", *sizes):
        getattr(kernels, name).restype = c_int64
    for name in KERNELS:
        getattr(kernels, name).argtypes, getattr(kernels, name).restype = (c_void_p,), None
    for name, size in sizes.items():
        assert getattr(kernels, name)() == size, f"{name}: the header in ops/cpu/csrc and its Structure here differ"


def thread_split(batch: int, most: int = MAX_SPLITS) -> dict[str, int]:
    """`threads` and `splits` of a call. Each sample's work is split into so many parts, up to `most`, that every thread
    has one."""
    threads = torch.get_num_threads()
    splits = max(1, min(MAX_SPLITS, most, -(-threads // max(1, batch))))
    return {"threads": min(threads, max(1, batch * splits)), "splits": splits}


def pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def rows(x: Tensor) -> Tensor:
    """(B, I, L) -> (B, L, I) with channels side by side in memory: a view where memory is channel-last."""
    x = x.transpose(1, 2)
    return x if x.stride(2) == 1 or x.shape[2] == 1 else x.contiguous()


def columns(x: Tensor) -> Tensor:
    """(B, N, L) | (B, G, N, L) -> (B, G, L, N) in float32 with states side by side in memory: a view where they are."""
    x = (x if x.dim() == 4 else x[:, None]).transpose(2, 3).float()
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def io_dtype(*sequences: Tensor | None) -> torch.dtype:
    """bfloat16 if all sequences are bfloat16, otherwise float32."""
    all_half = all(x is None or x.dtype == torch.bfloat16 for x in sequences)
    return torch.bfloat16 if all_half else torch.float32
