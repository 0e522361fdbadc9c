"""The inner part of a Mamba mixer, from the output of the input projection to the output projection.

`one_by_one` is the specification of the bidirectional mixer. Every backend's fused path computes the same from the same
arguments.
Shape suffixes: B batch, L tokens, I inner channels, x 2I (scan input and gate side by side), N states, R rank of the
step size, E model width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.arguments import ConvFunction, ConvInputs, ScanFunction, ScanInputs


class Direction(NamedTuple):
    """Parameters of one direction's convolution, projections and scan."""

    conv_weight: Tensor  # (I, width)
    conv_bias: Tensor  # (I,)
    x_proj: Tensor  # (R + 2N, I)
    dt_proj: Tensor  # (I, R)
    dt_bias: Tensor  # (I,)
    A: Tensor  # (I, N), negative
    D: Tensor  # (I,)

    def conv_inputs(self, x_BIL: Tensor, reverse: bool) -> ConvInputs:
        """Arguments of the convolution that makes the scan's input u from x."""
        return ConvInputs(x_BIL, self.conv_weight, self.conv_bias, activation="silu", reverse=reverse)

    def scan_inputs(self, u_BIL: Tensor, z_BIL: Tensor, reverse: bool) -> ScanInputs:
        """Arguments of the scan of u, gated by silu(z): step sizes, B and C are projections of u."""
        dt_BLR, B_BLN, C_BLN = self.split_projection(F.linear(u_BIL.transpose(1, 2), self.x_proj.to(u_BIL.dtype)))
        delta_BLI = F.linear(dt_BLR, self.dt_proj.to(dt_BLR.dtype))  # the scan adds the bias and applies softplus
        return ScanInputs(
            u=u_BIL,
            delta=delta_BLI.transpose(1, 2),
            A=self.A,
            B=B_BLN.transpose(1, 2),
            C=C_BLN.transpose(1, 2),
            D=self.D,
            z=z_BIL,
            delta_bias=self.dt_bias,
            delta_softplus=True,
            reverse=reverse,
        )

    def split_projection(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(..., L, R + 2N) -> views dt (..., L, R), B and C (..., L, N)."""
        rank, states = self.dt_proj.shape[-1], self.A.shape[-1]
        dt, B, C = projected.split_with_sizes([rank, states, states], dim=-1)
        return dt, B, C


def one_direction(scan: ScanFunction, conv: ConvFunction, xz_BLx: Tensor, weights: Direction, reverse: bool) -> Tensor:
    """One direction, gated by silu(z): (B, L, 2I) -> (B, I, L)."""
    x_BIL, z_BIL = xz_BLx.transpose(1, 2).chunk(2, dim=1)  # views: memory stays channel-last
    u_BIL = conv(weights.conv_inputs(x_BIL, reverse))
    y_BIL, _ = scan(weights.scan_inputs(u_BIL, z_BIL, reverse))
    return y_BIL


def one_by_one(
    scan: ScanFunction, conv: ConvFunction, xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor
) -> Tensor:
    """The mean of both directions, projected: (B, L, 2I), out_weight (E, I) -> (B, L, E)."""
    y_BIL = one_direction(scan, conv, xz_BLx, forward, False) + one_direction(scan, conv, xz_BLx, backward, True)
    return F.linear(y_BIL.transpose(1, 2) / 2, out_weight.to(y_BIL.dtype))


def side_by_side(
    scan: ScanFunction, conv: ConvFunction, xz_BLx: Tensor, forward: Direction, backward: Direction, out_weight: Tensor
) -> Tensor:
    """`one_by_one` with both directions in one call of `conv` and one of `scan`, for kernels of one direction.

    The flipped sequence becomes further channels of the sequence, with a group of B and C of its own.
    """
    xz_BxL = xz_BLx.transpose(1, 2)
    (x, z), (x_b, z_b) = xz_BxL.chunk(2, dim=1), xz_BxL.flip(-1).chunk(2, dim=1)
    conv_weight = torch.cat([forward.conv_weight, backward.conv_weight])
    conv_bias = torch.cat([forward.conv_bias, backward.conv_bias])
    u = conv(ConvInputs(torch.cat([x, x_b], dim=1), conv_weight, conv_bias, activation="silu"))
    u_f, u_b = u.chunk(2, dim=1)
    scan_f, scan_b = forward.scan_inputs(u_f, z, False), backward.scan_inputs(u_b, z_b, False)
    both = ScanInputs(
        u=u,
        delta=torch.cat([scan_f.delta, scan_b.delta], dim=1),
        A=torch.cat([forward.A, backward.A]),
        B=torch.stack([scan_f.B, scan_b.B], dim=1),
        C=torch.stack([scan_f.C, scan_b.C], dim=1),
        D=torch.cat([forward.D, backward.D]),
        z=torch.cat([z, z_b], dim=1),
        delta_bias=torch.cat([forward.dt_bias, backward.dt_bias]),
        delta_softplus=True,
    )
    y_f, y_b = scan(both)[0].chunk(2, dim=1)
    return F.linear((y_f + y_b.flip(-1)).transpose(1, 2) / 2, out_weight.to(y_f.dtype))
