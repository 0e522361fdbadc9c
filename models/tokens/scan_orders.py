"""Scan orders: one function from a token grid to the order in which a trunk reads its tokens.

Everything outside a trunk stays in raster order: VolumeEncoder.scan puts tokens in scan order and back.
"""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from models.config import Grid, ScanOrder

AXES = {"z": 0, "y": 1, "x": 2}
RASTER: ScanOrder = "raster"
SHUFFLE: ScanOrder = "shuffle"
Vector = tuple[int, int, int]  # along (z, y, x)


@cache
def scan_places(order: ScanOrder, grid: Grid) -> Tensor:
    """(L,) int64 on the CPU: the raster index of the token that is read first, second, and so on; its argsort is the
    inverse. Shared between calls: do not write to it. Raises ValueError for `shuffle`, which no grid decides."""
    if order == SHUFFLE:
        raise ValueError('scan_order="shuffle" follows the noise of a mask; a grid alone gives it no order')
    raster = torch.arange(grid[0] * grid[1] * grid[2], device="cpu").view(grid)
    if order == "hilbert":
        z, y, x = torch.tensor(list(hilbert_path(grid)), device="cpu").unbind(1)
        return raster[z, y, x]
    if order == "snake":
        return _snake(raster)
    names = "zyx" if order == RASTER else order
    return raster.permute([AXES[name] for name in names]).flatten()


def _snake(raster_zyx: Tensor) -> Tensor:
    """Rows along x in turn forwards and backwards, planes in turn from first to last y and back: every step is to a
    neighbour."""
    planes = raster_zyx.clone()
    planes[1::2] = planes[1::2].flip(1)
    rows = planes.flatten(0, 1)
    rows[1::2] = rows[1::2].flip(1)
    return rows.flatten()


def hilbert_path(grid: Grid) -> Iterator[Vector]:
    """The (z, y, x) of every token along a generalised Hilbert curve, which fills a box of any sides.

    A box is cut in halves along its long sides, the parts so turned that each ends beside the next one's start. Where a
    side is odd, a step may be diagonal. Source: J. Cerveny, "gilbert", github.com/jakubcerveny/gilbert (BSD-2), whose
    cuts and turns these are.
    """
    longest = max(range(3), key=lambda axis: grid[axis])
    others = [axis for axis in range(3) if axis != longest]
    sides = [tuple(grid[axis] if i == axis else 0 for i in range(3)) for axis in (longest, *others)]
    yield from _fill((0, 0, 0), *sides)  # pyright: ignore[reportArgumentType]  # tuples of three


def _fill(start: Vector, a: Vector, b: Vector, c: Vector) -> Iterator[Vector]:
    """Walk the box that a (the main direction), b and c span from `start`, ending at the far end of a."""
    w, h, d = (abs(sum(side)) for side in (a, b, c))
    for side, length in ((a, w), (b, h), (c, d)):
        if w * h * d == length:  # a row
            for _ in range(length):
                yield start
                start = _add(start, _unit(side))
            return
    a2, b2, c2 = _half(a), _half(b), _half(c)
    if 2 * w > 3 * h and 2 * w > 3 * d:  # long: halves along a
        yield from _fill(start, a2, b, c)
        yield from _fill(_add(start, a2), _less(a, a2), b, c)
        return
    a_end = _less(a, _unit(a))
    if 3 * h > 4 * d:  # flat: d stays whole
        yield from _fill(start, b2, c, a2)
        yield from _fill(_add(start, b2), a, _less(b, b2), c)
        yield from _fill(_add(start, a_end, _less(b2, _unit(b))), _minus(b2), c, _minus(_less(a, a2)))
        return
    if 3 * d > 4 * h:  # flat: h stays whole
        yield from _fill(start, c2, a2, b)
        yield from _fill(_add(start, c2), a, b, _less(c, c2))
        yield from _fill(_add(start, a_end, _less(c2, _unit(c))), _minus(c2), _minus(_less(a, a2)), b)
        return
    b_turn, c_end = _less(b2, _unit(b)), _less(c, _unit(c))
    yield from _fill(start, b2, c2, a2)
    yield from _fill(_add(start, b2), c, a2, _less(b, b2))
    yield from _fill(_add(start, b_turn, c_end), a, _minus(b2), _minus(_less(c, c2)))
    yield from _fill(_add(start, a_end, b2, c_end), _minus(c), _minus(_less(a, a2)), _less(b, b2))
    yield from _fill(_add(start, a_end, b_turn), _minus(b2), c2, _minus(_less(a, a2)))


def _half(side: Vector) -> Vector:
    """About half of it, an even number of steps where it is longer than two."""
    length = abs(sum(side))
    half = length // 2
    half += half % 2 and length > 2
    return tuple(half * step for step in _unit(side))  # pyright: ignore[reportReturnType]


def _unit(side: Vector) -> Vector:
    return tuple((i > 0) - (i < 0) for i in side)  # pyright: ignore[reportReturnType]


def _add(*vectors: Vector) -> Vector:
    return tuple(map(sum, zip(*vectors)))  # pyright: ignore[reportReturnType]


def _minus(vector: Vector) -> Vector:
    return tuple(-i for i in vector)  # pyright: ignore[reportReturnType]


def _less(vector: Vector, other: Vector) -> Vector:
    return _add(vector, _minus(other))
