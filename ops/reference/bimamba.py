"""The inner part of a bidirectional Mamba mixer, from the input projection's output to the output projection's.

`one_by_one` is the specification. Every backend's fused path computes the same from the same arguments.
Glossary: B batch, L tokens, I inner channels, N states, R rank of the step size, E model width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Direction(NamedTuple):
    """Parameters of one direction's convolution, projections and scan."""

    conv_weight: Tensor  # (I, width)
    conv_bias: Tensor  # (I,)
    x_proj: Tensor  # (R + 2N, I)
    dt_proj: Tensor  # (I, R)
    dt_bias: Tensor  # (I,)
    A: Tensor  # (I, N), negative
    D: Tensor  # (I,)

    def parts(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., L, R + 2N) -> views dt (..., L, R), B and C (..., L, N)."""
        rank, states = self.dt_proj.shape[-1], self.A.shape[-1]
        dt, B, C = projected.split_with_sizes([rank, states, states], dim=-1)
        return dt, B, C


def one_direction(
    scan: Callable[..., Any], conv: Callable[..., Any], xz_BLx: Tensor, weights: Direction, reverse: bool
) -> Tensor:
    """One direction, gated by silu(z): (B, L, 2I) -> (B, I, L)."""
    x_BIL, z_BIL = xz_BLx.transpose(1, 2).chunk(2, dim=1)  # views: memory stays channel-last
    u_BIL = conv(x_BIL, weights.conv_weight, weights.conv_bias, activation="silu", reverse=reverse)
    dt_BLR, B_BLN, C_BLN = weights.parts(F.linear(u_BIL.transpose(1, 2), weights.x_proj))
    delta_BLI = F.linear(dt_BLR, weights.dt_proj)  # bias and softplus belong to the scan
    return scan(
        u_BIL,
        delta_BLI.transpose(1, 2),
        weights.A,
        B_BLN.transpose(1, 2),
        C_BLN.transpose(1, 2),
        weights.D,
        z=z_BIL,
        delta_bias=weights.dt_bias,
        delta_softplus=True,
        reverse=reverse,
    )


def one_by_one(
    scan: Callable[..., Any],
    conv: Callable[..., Any],
    xz_BLx: Tensor,
    forward: Direction,
    backward: Direction,
    out_weight: Tensor,
) -> Tensor:
    """The mean of both directions, projected: (B, L, 2I), out_weight (E, I) -> (B, L, E). scan, conv: as in ops."""
    y_BIL = one_direction(scan, conv, xz_BLx, forward, False) + one_direction(scan, conv, xz_BLx, backward, True)
    return F.linear(y_BIL.transpose(1, 2) / 2, out_weight)


def side_by_side(
    scan: Callable[..., Any],
    conv: Callable[..., Any],
    xz_BLx: Tensor,
    forward: Direction,
    backward: Direction,
    out_weight: Tensor,
) -> Tensor:
    """`one_by_one` with both directions in one call of `conv` and one of `scan`, for kernels that know one direction.

    The reversed sequence stands beside the sequence as further channels, with a group of B and C of its own.
    """
    both_BIL = xz_BLx.transpose(1, 2)
    (x, z), (x_b, z_b) = both_BIL.chunk(2, dim=1), both_BIL.flip(-1).chunk(2, dim=1)

    def beside(name: str) -> Tensor:
        return torch.cat([getattr(forward, name), getattr(backward, name)])

    u_BJL = conv(torch.cat([x, x_b], dim=1), beside("conv_weight"), beside("conv_bias"), activation="silu")
    deltas, Bs, Cs = [], [], []
    for u_BIL, weights in zip(u_BJL.chunk(2, dim=1), (forward, backward)):
        dt_BLR, B_BLN, C_BLN = weights.parts(F.linear(u_BIL.transpose(1, 2), weights.x_proj))
        deltas.append(F.linear(dt_BLR, weights.dt_proj).transpose(1, 2))
        Bs.append(B_BLN.transpose(1, 2))
        Cs.append(C_BLN.transpose(1, 2))
    y, y_b = scan(
        u_BJL,
        torch.cat(deltas, dim=1),
        beside("A"),
        torch.stack(Bs, dim=1),
        torch.stack(Cs, dim=1),
        beside("D"),
        z=torch.cat([z, z_b], dim=1),
        delta_bias=beside("dt_bias"),
        delta_softplus=True,
    ).chunk(2, dim=1)
    return F.linear((y + y_b.flip(-1)).transpose(1, 2) / 2, out_weight)
