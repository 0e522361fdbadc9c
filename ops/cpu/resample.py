"""torch.ops.mamba_mae.resample_affine by ops/cpu/csrc/resample.cpp. It works on data and has no gradient.

Shape suffixes: B batch, C contrasts, Z Y X voxels; 3 and 4 are sizes.
"""

from ctypes import byref

import torch
from torch import Tensor

from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from ops.cpu.library import Resample, pointer
from ops.operators import register


def takes(volume: Tensor) -> bool:
    """Whether the kernel can read this volume: float32, without a gradient, small enough for 32-bit offsets."""
    readable = volume.dtype == torch.float32 and not volume.requires_grad and volume.shape[2:].numel() < 2**31
    return readable and cpu.unavailable(volume) is None


def resample_affine(volume_BCZYX: Tensor, back_B34: Tensor) -> Tensor:
    """`ops.resample_affine_fn` for what `takes` accepts."""
    return torch.ops.mamba_mae.resample_affine(volume_BCZYX, back_B34)


def _resample(volume: Tensor, back: Tensor) -> Tensor:
    volume, back = volume.contiguous(), back.contiguous()
    out = torch.empty_like(volume)
    batch, channels, z, y, x = volume.shape
    arguments = Resample(
        batch=batch, channels=channels, z=z, y=y, x=x, threads=torch.get_num_threads(),
        back=pointer(back), volume=pointer(volume), out=pointer(out),
    )  # fmt: skip
    cpu_library.library().resample_affine(byref(arguments))
    return out


register(
    "resample_affine(Tensor volume, Tensor back) -> Tensor",
    _resample,
    lambda volume, back: volume.new_empty(volume.shape),
)
