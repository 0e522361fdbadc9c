"""Scan orders: from a token grid to the order in which a trunk reads its tokens.

Outside a trunk, tokens are in raster order: VolumeEncoder.scan reorders them and back.
Suffix zyx: one entry per token of the grid.
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
    """(L,) int64 on the CPU: the raster index of the token at each scan step. Its argsort is the inverse.

    Calls share the result: do not write to it. Raises ValueError for `shuffle`, which does not depend on the grid.
    """
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
    """Rows alternate between forward and backward along x, planes between forward and backward along y, so every step
    goes to a neighbour."""
    planes = raster_zyx.clone()
    planes[1::2] = planes[1::2].flip(1)
    rows = planes.flatten(0, 1)
    rows[1::2] = rows[1::2].flip(1)
    return rows.flatten()


def hilbert_path(grid: Grid) -> Iterator[Vector]:
    """The (z, y, x) of every token along a generalised Hilbert curve, which fills a box of any size.

    A box is halved along its long sides, and the parts are rotated so that each ends next to the start of the next one.
    A step may be diagonal if a side is odd. Source of the cuts and rotations: J. Cerveny, "gilbert",
    github.com/jakubcerveny/gilbert (BSD-2).
    """
    longest = max(range(3), key=lambda axis: grid[axis])
    others = [axis for axis in range(3) if axis != longest]
    sides = [tuple(grid[axis] if i == axis else 0 for i in range(3)) for axis in (longest, *others)]
    yield from _fill((0, 0, 0), *sides)  # pyright: ignore[reportArgumentType]  # tuples of three


def _fill(start: Vector, a: Vector, b: Vector, c: Vector) -> Iterator[Vector]:
    """Walk the box that a (the main direction), b and c span, from `start` to the far end of a."""
    w, h, d = (abs(sum(side)) for side in (a, b, c))
    for side, length in ((a, w), (b, h), (c, d)):
        if w * h * d == length:  # a row
            for _ in range(length):
                yield start
                start = _add(start, _unit(side))
            return
    a2, b2, c2 = _half(a), _half(b), _half(c)
    if 2 * w > 3 * h and 2 * w > 3 * d:  # long: halve along a
        yield from _fill(start, a2, b, c)
        yield from _fill(_add(start, a2), _less(a, a2), b, c)
        return
    a_end = _less(a, _unit(a))
    if 3 * h > 4 * d:  # flat: do not cut along c
        yield from _fill(start, b2, c, a2)
        yield from _fill(_add(start, b2), a, _less(b, b2), c)
        yield from _fill(_add(start, a_end, _less(b2, _unit(b))), _minus(b2), c, _minus(_less(a, a2)))
        return
    if 3 * d > 4 * h:  # flat: do not cut along b
        yield from _fill(start, c2, a2, b)
        yield from _fill(_add(start, c2), a, b, _less(c, c2))
        yield from _fill(_add(start, a_end, _less(c2, _unit(c))), _minus(c2), _minus(_less(a, a2)), b)
        return
    b_end, c_end = _less(b2, _unit(b)), _less(c, _unit(c))
    yield from _fill(start, b2, c2, a2)
    yield from _fill(_add(start, b2), c, a2, _less(b, b2))
    yield from _fill(_add(start, b_end, c_end), a, _minus(b2), _minus(_less(c, c2)))
    yield from _fill(_add(start, a_end, b2, c_end), _minus(c), _minus(_less(a, a2)), _less(b, b2))
    yield from _fill(_add(start, a_end, b_end), _minus(b2), c2, _minus(_less(a, a2)))


def _half(side: Vector) -> Vector:
    """About half of a side: an even number of steps if it has more than two."""
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
