"""The selective scan of one direction or two by the kernels of this folder, and its gradient.

The forward pass keeps the states at segment borders (9 MB at 64,000 tokens of 768 channels). Every sum has one order,
so results do not change between calls.
Shapes: D directions, B batch, L positions, I inner channels, N states, G groups, S segments.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ops.triton.host import BLOCK, launch, next_power, steps_per_segment, tile
from ops.triton.kernels import scan_backward, scan_forward

FORWARD_CHANNELS, BACKWARD_CHANNELS = 64, 128  # of a program: two and four per thread
STATES_AT_ONCE = 2  # in the main pass of the backward kernels
REPLAY_BYTES = 1 << 30  # of replayed states in memory at a time; one sample's states may take more
ONE_WARP: dict[str, Any] = {"num_warps": 1, "num_stages": 1}


class ScanArguments(NamedTuple):
    """Arguments of one direction's scan, or of two over the same tokens, the second from the other end.

    u and delta are (D, B, L, I); B and C (D, B, G, L, N); A is (D, I, N), D and bias (D, I), float32 and contiguous. z
    and results (B, L, I) are shared by all directions. The last axis of each is dense. The result is multiplied by
    `factor`.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None
    softplus: bool
    reverse: bool
    factor: float

    @property
    def sizes(self) -> tuple[int, int, int, int, int, int]:
        """(directions, batch, length, channels, states, groups)."""
        directions, batch, length, channels = self.u.shape
        return directions, batch, length, channels, self.A.shape[2], self.B.shape[2]

    @property
    def steps(self) -> int:
        """Steps of a segment."""
        _, batch, length, channels, _, groups = self.sizes
        return steps_per_segment(length, blocks(channels, groups, BACKWARD_CHANNELS) * batch, self.u.device)

    @property
    def segments(self) -> int:
        return -(-self.u.shape[2] // self.steps)

    def border_shape(self) -> tuple[int, ...]:
        """(D, B, S, N, I): the shape of the states at segment borders."""
        directions, batch, _, channels, states, _ = self.sizes
        return directions, batch, self.segments, states, channels

    def new(self, *shape: int) -> Tensor:
        return self.u.new_empty(shape, dtype=torch.float32)

    def part(self, direction: int, samples: slice) -> "ScanArguments":
        """One direction of some samples."""
        d = slice(direction, direction + 1)
        return self._replace(
            u=self.u[d, samples],
            delta=self.delta[d, samples],
            A=self.A[d],
            B=self.B[d, samples],
            C=self.C[d, samples],
            D=None if self.D is None else self.D[d],
            z=None if self.z is None else self.z[samples],
            bias=None if self.bias is None else self.bias[d],
            reverse=self.reverse != (direction == 1),
        )

    def shape_options(self, most_channels: int) -> dict[str, Any]:
        _, _, _, channels, states, groups = self.sizes
        width = channels // groups
        return {
            "I": channels,
            "WIDTH": width,
            "N": states,
            "NP": max(STATES_AT_ONCE, next_power(states)),
            "CHANNELS": tile(width, most_channels),
            "SOFTPLUS": self.softplus,
            "HAS_BIAS": self.bias is not None,
            **ONE_WARP,
        }


def blocks(channels: int, groups: int, most: int) -> int:
    """The number of programs that cover all channels. No program has channels of two groups."""
    width = channels // groups
    return groups * -(-width // tile(width, most))


def _strides(x: Tensor, axes: int) -> tuple[int, ...]:
    return x.stride()[:axes]


def forward(scan: ScanArguments, out: Tensor) -> tuple[Tensor, Tensor]:
    """Fill `out` (B, L, I). Returns the states before each segment (D, B, S, N, I) and after the last (D, B, N, I)."""
    u, delta, A, B, C, D, z, bias, _, reverse, factor = scan
    directions, batch, length, channels, states, groups = scan.sizes
    starts, last = scan.new(*scan.border_shape()), scan.new(directions, batch, states, channels)
    if 0 in (batch, length, channels):
        return starts, last.zero_()
    steps, segments = scan.steps, scan.segments
    sums = scan.new(directions, batch, segments, channels)
    options = scan.shape_options(FORWARD_CHANNELS)
    grid = (segments, blocks(channels, groups, FORWARD_CHANNELS))
    sequences = *_strides(u, 2), *_strides(delta, 2), *_strides(B, 3)
    z_or_u = u[0] if z is None else z
    launch(
        scan_forward.scan_local, (*grid, directions * batch),
        u, delta, A, B, bias, starts, sums, length, batch, steps, segments, *sequences,
        U_ROW=u.stride(2), DELTA_ROW=delta.stride(2), B_ROW=B.stride(3), UNROLL=BLOCK, REVERSE=int(reverse),
        REPLAY=False, **options,
    )  # fmt: skip
    _carry(scan, starts, sums, last, int(reverse))
    launch(
        scan_forward.scan_final, (*grid, batch),
        u, delta, A, B, C, D, z_or_u, bias, starts, out, length, batch, steps, segments, factor, *sequences,
        *_strides(C, 3), z_or_u.stride(0), out.stride(0),
        U_ROW=u.stride(2), DELTA_ROW=delta.stride(2), B_ROW=B.stride(3), C_ROW=C.stride(3),
        Z_ROW=z_or_u.stride(1), OUT_ROW=out.stride(1), UNROLL=BLOCK, DIRECTIONS=directions, HAS_D=D is not None,
        HAS_Z=z is not None, REVERSE=int(reverse), **options,
    )  # fmt: skip
    return starts, last


def _carry(scan: ScanArguments, states: Tensor, sums: Tensor, last: Tensor, reverse: int) -> None:
    directions, batch, segments, count, channels = states.shape
    width = min(128, max(32, next_power(channels)))
    launch(
        scan_forward.scan_carry, (-(-channels // width), count, directions * batch),
        scan.A, states, sums, states, last, batch, segments, I=channels, N=count, CHANNELS=width, REVERSE=reverse,
        **ONE_WARP,
    )  # fmt: skip


class Gradients(NamedTuple):
    """du, ddelta (D, B, L, I) in u's precision; the rest float32: dA (D, I, N), dBC (D, B, G, L, 2 N), dD and dbias
    (D, I)."""

    du: Tensor
    ddelta: Tensor
    dA: Tensor
    dBC: Tensor
    dD: Tensor
    dbias: Tensor


def backward(
    scan: ScanArguments, dout: Tensor, starts: Tensor, dz: Tensor | None, out: Tensor | None = None
) -> Gradients:
    """The gradients. Fills `dz` (B, L, I), dense along its last axis, and, if wanted again, contiguous `out` (B, L, I).

    dout (B, L, I); starts: the states that `forward` returned.
    """
    directions, batch, length, channels, states, groups = scan.sizes
    du = torch.empty_like(scan.u, memory_format=torch.contiguous_format)
    ddelta = torch.empty_like(du)
    if 0 in (batch, length, channels):
        per_channel = (directions, channels)
        shapes = (*per_channel, states), (directions, batch, groups, length, 2 * states), per_channel, per_channel
        zeros = (du.new_zeros(shape, dtype=torch.float32) for shape in shapes)
        return Gradients(du, ddelta, *zeros)
    carries = _adjoint_carries(scan, dout)
    parts = [_direction(scan, d, dout, starts, carries, du[d], ddelta[d], dz, out) for d in range(directions)]
    return Gradients(du, ddelta, *(torch.stack(part) if len(parts) > 1 else part[0][None] for part in zip(*parts)))


def _adjoint_carries(scan: ScanArguments, dout: Tensor) -> Tensor:
    """(D, B, S, N, I): the adjoint state that each segment gets from those after it in the walk."""
    _, delta, A, _, C, _, z, bias, _, reverse, factor = scan
    directions, batch, length, channels, states, groups = scan.sizes
    ends, last = scan.new(*scan.border_shape()), scan.new(directions, batch, states, channels)
    sums = scan.new(directions, batch, scan.segments, channels)
    z_or_dout = dout if z is None else z
    grid = scan.segments, blocks(channels, groups, FORWARD_CHANNELS), directions * batch
    launch(
        scan_backward.adjoint_local, grid,
        delta, A, C, z_or_dout, bias, dout, ends, sums, length, batch, scan.steps, scan.segments, factor,
        *_strides(delta, 2), *_strides(C, 3), z_or_dout.stride(0), dout.stride(0),
        DELTA_ROW=delta.stride(2), C_ROW=C.stride(3), Z_ROW=z_or_dout.stride(1), DOUT_ROW=dout.stride(1), UNROLL=BLOCK,
        HAS_Z=z is not None, REVERSE=int(reverse), **scan.shape_options(FORWARD_CHANNELS),
    )  # fmt: skip
    _carry(scan, ends, sums, last, 1 - int(reverse))
    return ends


def _direction(scan: ScanArguments, direction: int, dout: Tensor, starts: Tensor, carries: Tensor, du: Tensor,
               ddelta: Tensor, dz: Tensor | None, out: Tensor | None) -> tuple[Tensor, ...]:  # fmt: skip
    """Returns dA, dBC, dD and dbias of one direction. Fills the other gradients; the second direction adds to them."""
    _, batch, length, channels, states, groups = scan.sizes
    steps, segments = scan.steps, scan.segments
    bytes_per_sample = 4 * segments * (steps // BLOCK) * states * channels
    samples = min(batch, max(1, REPLAY_BYTES // bytes_per_sample))
    replayed = scan.new(samples, segments * (steps // BLOCK), states, channels)
    zeros = torch.zeros(batch * segments * (states + 2) * channels, dtype=torch.float32, device=du.device)
    dA, dD, dbias = (
        part.view(batch, segments, *shape)
        for part, shape in zip(
            zeros.split([batch * segments * channels * n for n in (states, 1, 1)]),
            ((states, channels), (channels,), (channels,)),
        )
    )
    per_group = blocks(channels, groups, BACKWARD_CHANNELS) // groups
    dBC = scan.new(batch, groups, length, 2 * states)
    for first in range(0, batch, samples):
        part = slice(first, min(first + samples, batch))
        sequences = carries[direction, part], du[part], ddelta[part]
        sums = dA[part], dD[part], dbias[part]
        partial = scan.new(per_group, part.stop - part.start, groups, length, 2 * states)
        _samples(
            scan.part(direction, part), steps, segments, dout[part], starts[direction : direction + 1, part], replayed,
            *sequences, None if dz is None else dz[part], None if out is None else out[part], *sums, partial,
            is_second=direction == 1,
        )  # fmt: skip
        torch.sum(partial, 0, out=dBC[part])
    return dA.sum((0, 1)).t(), dBC, dD.sum((0, 1)), dbias.sum((0, 1))


def _samples(scan: ScanArguments, steps: int, segments: int, dout: Tensor, starts: Tensor, replayed: Tensor,
             carries: Tensor, du: Tensor, ddelta: Tensor, dz: Tensor | None, out: Tensor | None, dA: Tensor, dD: Tensor,
             dbias: Tensor, dBC: Tensor, is_second: bool) -> None:  # fmt: skip
    """Replay and main pass of one direction of some samples, with the segments of the whole call."""
    u, delta, A, B, C, D, z, bias, _, reverse, factor = scan
    _, batch, length, channels, _, groups = scan.sizes
    rows = {"U_ROW": u.stride(2), "DELTA_ROW": delta.stride(2), "B_ROW": B.stride(3)}
    launch(
        scan_forward.scan_local, (segments, blocks(channels, groups, FORWARD_CHANNELS), batch),
        u, delta, A, B, bias, replayed, starts, length, batch, steps, segments,
        *_strides(u, 2), *_strides(delta, 2), *_strides(B, 3), UNROLL=BLOCK, REVERSE=int(reverse), REPLAY=True,
        **rows, **scan.shape_options(FORWARD_CHANNELS),
    )  # fmt: skip
    z_or_u, dz_or_u, out_or_u = u[0] if z is None else z, u[0] if dz is None else dz, u[0] if out is None else out
    launch(
        scan_backward.scan_main, (segments, blocks(channels, groups, BACKWARD_CHANNELS), batch),
        u, delta, A, B, C, D, z_or_u, bias, dout, replayed, carries, du, ddelta, dz_or_u, out_or_u, dA, dBC, dD, dbias,
        length, batch, steps, segments, factor,
        u.stride(1), delta.stride(1), *_strides(B, 3)[1:], *_strides(C, 3)[1:], z_or_u.stride(0), dout.stride(0),
        dz_or_u.stride(0), C_ROW=C.stride(3), Z_ROW=z_or_u.stride(1), DOUT_ROW=dout.stride(1),
        DZ_ROW=dz_or_u.stride(1), NT=STATES_AT_ONCE, HAS_D=D is not None, HAS_Z=z is not None,
        HAS_OUT=out is not None, BACKWARDS=int(reverse), ADD=is_second, **rows,
        **scan.shape_options(BACKWARD_CHANNELS),
    )  # fmt: skip
