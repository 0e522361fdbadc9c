"""Token mixers: the paper's bidirectional Mamba and softmax attention. Both map (B, L, E) -> (B, L, E).

Shape suffixes: B batch, L tokens, E width, x twice the inner width (scan input and gate side by side).
"""

import math
from contextlib import nullcontext
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.config import Directions
from ops import Backend, Direction, bimamba_fn, mamba_fn


class BiMamba(nn.Module):
    """Two selective scans over the same tokens, one from each end, averaged: the paper's "v2".

    See docs/method.md#bidirectional-mamba.

    Each direction has its own conv1d, x_proj, dt_proj, A_log and D (suffix _b: backward). The directions share in_proj
    and out_proj. Both directions run the same code on their parameters, so no backend can omit one of them. With
    directions="forward" there is only the first scan, which is not halved, and no parameter _b.
    """

    SUFFIXES = ("", "_b")  # of the parameters of the scan from the first token, and from the last

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        d_state: int,
        d_conv: int,
        expand: int,
        directions: Directions = "both",
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.causal = directions == "forward"
        self.suffixes = self.SUFFIXES[:1] if self.causal else self.SUFFIXES
        self.inner, self.d_state, self.dt_rank = expand * dim, d_state, math.ceil(dim / 16)
        self.backend: Backend = backend
        self.in_proj = nn.Linear(dim, 2 * self.inner, bias=False)
        for suffix in self.suffixes:
            conv = nn.Conv1d(self.inner, self.inner, d_conv, groups=self.inner)
            self.add_module(f"conv1d{suffix}", conv)
            self.add_module(f"x_proj{suffix}", nn.Linear(self.inner, self.dt_rank + 2 * d_state, bias=False))
            self.add_module(f"dt_proj{suffix}", _dt_projection(self.dt_rank, self.inner))
            A_log = torch.arange(1, d_state + 1, dtype=torch.float32).log().repeat(self.inner, 1)
            self.register_parameter(f"A{suffix}_log", nn.Parameter(A_log))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(self.inner)))
        self.out_proj = output_projection(self.inner, dim, depth)

    def forward(self, tokens_BLE: Tensor) -> Tensor:
        xz_BLx, (forward, *backward) = self.in_proj(tokens_BLE), (self.direction(suffix) for suffix in self.suffixes)
        if backward:
            return bimamba_fn(xz_BLx, forward, backward[0], self.out_proj.weight, backend=self.backend)
        return mamba_fn(xz_BLx, forward, self.out_proj.weight, backend=self.backend)

    def weights(self) -> tuple[Tensor, Direction, Direction, Tensor]:
        """The weights of the whole mixer, as `ops.bimamba_block_fn` takes them."""
        forward, backward = (self.direction(suffix) for suffix in self.SUFFIXES)
        return self.in_proj.weight, forward, backward, self.out_proj.weight

    def direction(self, suffix: str) -> Direction:
        """The parameters of one direction. Those of the scan are float32 at least."""
        conv, x_proj, dt_proj = (self.get_submodule(f"{part}{suffix}") for part in ("conv1d", "x_proj", "dt_proj"))
        return Direction(
            conv_weight=cast(Tensor, conv.weight).squeeze(1),
            conv_bias=cast(Tensor, conv.bias),
            x_proj=cast(Tensor, x_proj.weight),
            dt_proj=cast(Tensor, dt_proj.weight),
            dt_bias=precise(cast(Tensor, dt_proj.bias)),
            A=-precise(getattr(self, f"A{suffix}_log")).exp(),  # under torch.func.functional_call this is no Parameter
            D=precise(getattr(self, f"D{suffix}")),
        )


def precise(x: Tensor) -> Tensor:
    """x in float32 at least, as a scan's own parameters need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def output_projection(inner: int, dim: int, depth: int) -> nn.Linear:
    """Linear I -> E without bias, scaled by 1 / sqrt(depth): so many blocks add to the residual."""
    projection = nn.Linear(inner, dim, bias=False)
    with torch.no_grad():
        nn.init.kaiming_uniform_(projection.weight, a=math.sqrt(5))
        projection.weight /= math.sqrt(depth)
    return projection


def step_size_bias(count: int) -> Tensor:
    """(count,) with softplus(bias) log-uniform in [1e-3, 1e-1] (floor 1e-4): a scan's initial step sizes."""
    low, high = math.log(1e-3), math.log(1e-1)
    dt = (torch.rand(count) * (high - low) + low).exp().clamp(min=1e-4)
    return dt + torch.log(-torch.expm1(-dt))  # inverse of softplus


def _dt_projection(rank: int, inner: int) -> nn.Linear:
    """Linear R -> I, its bias by `step_size_bias`."""
    projection = nn.Linear(rank, inner)
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    with torch.no_grad():
        projection.bias.copy_(step_size_bias(inner))
    return projection


class Attention(nn.Module):
    """Multi-head softmax attention by scaled_dot_product_attention, which uses each platform's fused kernel.

    causal: a token attends only to itself and earlier tokens.
    """

    def __init__(self, dim: int, num_heads: int, causal: bool = False, backend: Backend = "auto") -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        self.backend: Backend = backend
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens_BLE: Tensor) -> Tensor:
        q, k, v = self.qkv(tokens_BLE).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v, self.causal, self.backend).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, backend: Backend) -> Tensor:
    """Softmax attention (B, heads, L, width).

    The backend "reference" uses plain products, because fused kernels have no second derivative.
    """
    with sdpa_kernel(SDPBackend.MATH) if backend == "reference" else nullcontext():
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
