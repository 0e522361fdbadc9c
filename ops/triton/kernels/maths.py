"""Functions of one element that several kernels use, and access to a row."""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2_E))


@triton.jit
def silu_slope(x):
    """The derivative of x sigmoid(x)."""
    s = sigmoid(x)
    return s * (1.0 + x * (1.0 - s))


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(e), e = exp(-|x|). The logarithm is e times a polynomial, with a relative error of 1.3e-7 at
    most. This takes a third of tl.log's instructions and is exact where steps are small."""
    e = tl.exp2(-tl.abs(x) * LOG2_E)
    p = -0.00316403923 * e + 0.0194879305
    p = p * e - 0.05627013
    p = p * e + 0.105330296
    p = p * e - 0.152633339
    p = p * e + 0.196610451
    p = p * e - 0.249511749
    p = p * e + 0.333296657
    p = p * e - 0.499998897
    p = p * e + 1.0
    return tl.maximum(x, 0.0) + e * p


@triton.jit
def row(pointer, t, ROW: tl.constexpr, columns, mask):
    """Columns of row t in float32, 0 where masked. Offsets have 64 bits: a batch can have more than 2^31 elements."""
    return tl.load(pointer + t.to(tl.int64) * ROW + columns, mask=mask, other=0.0).to(tl.float32)
