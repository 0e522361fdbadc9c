"""The scan's arguments as time-major views (T, B, G, N, J) that broadcast against the state, without copying.

Shape suffixes: T or L time, B batch, G groups of channels that share B_t and C_t, N states, J channels inside a group;
I = G * J.
"""

from typing import NamedTuple

import torch
from torch import Tensor


def per_position(x: Tensor, groups: int) -> Tensor:
    """(B, I, L) -> view (L, B, G, 1, J)"""
    return x.permute(2, 0, 1).unflatten(2, (groups, 1, x.shape[1] // groups))


def from_per_position(x: Tensor) -> Tensor:
    """(L, B, G, 1, J) -> view (B, I, L)"""
    return x.flatten(2).permute(1, 2, 0)


def per_channel(x: Tensor, groups: int) -> Tensor:
    """(I, N) -> view (1, 1, G, N, J)"""
    return x.unflatten(0, (groups, x.shape[0] // groups)).transpose(1, 2)[None, None]


def from_per_channel(x: Tensor) -> Tensor:
    """(1, 1, G, N, J) -> (I, N)"""
    return x[0, 0].transpose(1, 2).flatten(0, 1)


def channel_last(batch: int, length: int, groups: int, width: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """Uninitialised (L, B, G, 1, width) view of contiguous (B, L, G * width) memory."""
    return like.new_empty(batch, length, groups, 1, width, dtype=dtype).transpose(0, 1)


class StateMatrix(NamedTuple):
    """B or C of the scan: one column of N numbers per position and group, or constant in time, one per channel."""

    value: Tensor  # (T, B, G, N, 1), or (1, 1, G, N, J) if constant
    is_constant: bool

    @classmethod
    def of(cls, matrix: Tensor, groups: int) -> "StateMatrix":
        """(I, N) | (B, N, L) | (B, G, N, L) -> view; a constant matrix is split into `groups`"""
        if matrix.dim() == 2:
            return cls(per_channel(matrix, groups), True)
        grouped = matrix if matrix.dim() == 4 else matrix[:, None]
        if grouped.shape[1] != groups:  # ScanInputs.check refuses (B, N, L) beside a grouped partner
            raise AssertionError(f"{grouped.shape[1]} groups where {groups} were expected")
        return cls(grouped.permute(3, 0, 1, 2)[..., None], False)

    def chunk(self, time: slice, batch: slice, dtype: torch.dtype) -> "StateMatrix":
        value = self.value if self.is_constant else self.value[time, batch]
        return StateMatrix(value.to(dtype), self.is_constant)

    def read(self, state: Tensor) -> Tensor:
        """Sum over N of value times state: (T, B, G, N, J) -> (T, B, G, 1, J)"""
        if self.is_constant:
            return (self.value * state).sum(-2, keepdim=True)
        return self.value.transpose(-1, -2) @ state

    def new_gradient(self, dtype: torch.dtype) -> Tensor:
        """An accumulator of the shape of `value`, in channel-last memory."""
        if self.is_constant:
            return torch.zeros_like(self.value, dtype=dtype)
        length, batch, groups, states, _ = self.value.shape
        return channel_last(batch, length, groups, states, self.value, dtype).transpose(-1, -2)

    def add_gradient(self, total: Tensor, time: slice, batch: slice, x: Tensor, state: Tensor) -> None:
        """Add one chunk's gradient of sum(value * x * state) with respect to value to `total`.

        x (T, B, G, 1, J), state (T, B, G, N, J).
        """
        if self.is_constant:
            total += (state * x).sum((0, 1))
        else:
            total[time, batch] = state @ x.transpose(-1, -2)

    def from_gradient(self, total: Tensor, shape: torch.Size) -> Tensor:
        """The accumulated gradient in the shape of the matrix that `of` received."""
        if self.is_constant:
            return from_per_channel(total)
        return total.squeeze(-1).permute(1, 2, 3, 0).reshape(shape)
