"""The Mamba2 mixer: one scan per direction with one decay per head (arXiv 2405.21060). (B, L, E) -> (B, L, E).

Shape suffixes: B batch, L tokens, E width, I inner channels, H heads, P channels of a head, G groups (1), N states, x a
concatenation of channels.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.blocks.mixers import output_projection, precise, step_size_bias
from models.config import Directions
from ops import Backend, causal_conv1d_fn, ssd_scan_fn

NORM_EPS = 1e-5
A_RANGE = (1.0, 16.0)  # initial decay rates of the heads, mamba_ssm's default


class Mamba2(nn.Module):
    """mamba_ssm's Mamba2 with one group and its parameter names, from the first token on or from both ends.

    A backward direction has parameters of its own (suffix _b), as in BiMamba: the projection to B, C and dt, the
    convolution, A, D, dt_bias, and here the gated norm. The directions share x, z and out_proj, and are averaged.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        *,
        d_state: int,
        d_conv: int,
        expand: int,
        head_dim: int,
        directions: Directions,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        inner = expand * dim
        if inner % head_dim:
            raise ValueError(
                f"the inner width {inner} = expand * {dim} of a Mamba2 mixer is not divisible by head_dim={head_dim}: "
                f"choose a head_dim that divides it, in the decoder too"
            )
        heads = inner // head_dim
        self.head_dim = head_dim
        self.backend: Backend = backend
        self.causal = directions == "forward"
        self.suffixes = ("",) if self.causal else ("", "_b")
        self.widths = [inner, inner, 2 * d_state, heads]  # z, x, B and C, dt
        self.in_proj = nn.Linear(dim, sum(self.widths), bias=False)
        if "_b" in self.suffixes:
            self.in_proj_b = nn.Linear(dim, sum(self.widths[2:]), bias=False)
        for suffix in self.suffixes:
            channels = inner + 2 * d_state  # x, B and C
            self.add_module(f"conv1d{suffix}", nn.Conv1d(channels, channels, d_conv, groups=channels))
            self.register_parameter(f"dt_bias{suffix}", nn.Parameter(step_size_bias(heads)))
            A_log = torch.empty(heads, dtype=torch.float32).uniform_(*A_RANGE).log()
            self.register_parameter(f"A{suffix}_log", nn.Parameter(A_log))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(heads)))
            self.add_module(f"norm{suffix}", nn.RMSNorm(inner, eps=NORM_EPS))
        self.out_proj = output_projection(inner, dim, depth)

    def forward(self, tokens_BLE: Tensor) -> Tensor:
        z_BLI, x_BLI, BC_BLx, dt_BLH = self.in_proj(tokens_BLE).split(self.widths, dim=-1)
        y_BLI = self._direction("", x_BLI, z_BLI, BC_BLx, dt_BLH)
        if "_b" in self.suffixes:
            BC_BLx, dt_BLH = self.in_proj_b(tokens_BLE).split(self.widths[2:], dim=-1)
            y_BLI = (y_BLI + self._direction("_b", x_BLI, z_BLI, BC_BLx, dt_BLH)) / 2
        return self.out_proj(y_BLI.to(self.out_proj.weight.dtype))

    def _direction(self, suffix: str, x_BLI: Tensor, z_BLI: Tensor, BC_BLx: Tensor, dt_BLH: Tensor) -> Tensor:
        """One direction, gated and normalised: (B, L, I), in float32 at least."""
        reverse = suffix == "_b"
        conv, norm = (self.get_submodule(f"{part}{suffix}") for part in ("conv1d", "norm"))
        weights, biases = cast(Tensor, conv.weight).squeeze(1), cast(Tensor, conv.bias)
        inner, states = self.widths[0], self.widths[2] // 2

        def convolve(sequence_BLx: Tensor, channels: slice) -> Tensor:
            convolved = causal_conv1d_fn(
                sequence_BLx.transpose(1, 2),
                weights[channels],
                biases[channels],
                activation="silu",
                reverse=reverse,
                backend=self.backend,
            )
            return convolved.transpose(1, 2)

        # x apart from B and C: the backward direction shares x but has its own B and C, and need not copy x beside them
        B_BLGN, C_BLGN = convolve(BC_BLx, slice(inner, None)).unsqueeze(2).split(states, dim=-1)
        y_BLHP = ssd_scan_fn(
            convolve(x_BLI, slice(inner)).unflatten(-1, (-1, self.head_dim)),
            dt_BLH,
            -precise(getattr(self, f"A{suffix}_log")).exp(),
            B_BLGN,
            C_BLGN,
            precise(getattr(self, f"D{suffix}")),
            precise(getattr(self, f"dt_bias{suffix}")),
            dt_softplus=True,
            reverse=reverse,
            backend=self.backend,
        )
        y_BLI = y_BLHP.flatten(2)
        gated = precise(y_BLI) * F.silu(precise(z_BLI))
        return F.rms_norm(gated, (inner,), cast(Tensor, norm.weight).to(gated.dtype), NORM_EPS)
