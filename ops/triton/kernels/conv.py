"""Depthwise causal convolution with SiLU of both directions in one pass over the input.

Layouts: x, dx (B, L, I), out and dout (D, B, L, I), weight (D, I, W) and bias (D, I) in float32; the last axis
is dense. D directions, B batch, L positions, I channels, W taps.
"""

# pyright: reportGeneralTypeIssues=false
import triton
import triton.language as tl

from ops.triton.kernels.maths import row, sigmoid, silu_slope

TAPS = 4  # the backward kernel holds so many in registers; shorter weights are padded with leading zeros


@triton.jit(do_not_specialize=("length", "batch"))
def conv_forward(x, weight, bias, out, length, batch, x_b,
                 X_ROW: tl.constexpr, I: tl.constexpr, W: tl.constexpr, TIMES: tl.constexpr, CHANNELS: tl.constexpr,
                 DIRECTIONS: tl.constexpr, REVERSE: tl.constexpr, HAS_BIAS: tl.constexpr, SILU: tl.constexpr
                 ):  # fmt: skip
    t = (tl.program_id(0) * TIMES + tl.arange(0, TIMES))[:, None]
    c = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    b = tl.program_id(2).to(tl.int64)
    x += b * x_b
    for d in tl.static_range(DIRECTIONS):
        sign = 1 - 2 * ((d + REVERSE) % 2)
        y = tl.zeros([TIMES, CHANNELS], tl.float32)
        if HAS_BIAS:
            y += tl.load(bias + d * I + c, mask=c < I, other=0.0)
        for shift in tl.static_range(W):
            source = t - sign * shift
            tap = tl.load(weight + (d * I + c) * W + (W - 1 - shift), mask=c < I, other=0.0)
            y += tap * row(x, source, X_ROW, c, (source >= 0) & (source < length) & (c < I))
        if SILU:
            y = y * sigmoid(y)
        place = out + (d * batch + b) * length * I + t.to(tl.int64) * I + c
        tl.store(place, y, mask=(t < length) & (c < I))


@triton.jit
def _slope(y, dy, SILU: tl.constexpr):
    """The gradient before the activation."""
    if SILU:
        return dy * silu_slope(y)
    return dy


@triton.jit
def _sums(part, c, exists, w0, w1, w2, w3, total, I: tl.constexpr):
    """Store the gradients of the taps and of the bias. The last tap multiplies the position itself."""
    tl.store(part + c, w3, mask=exists)
    tl.store(part + I + c, w2, mask=exists)
    tl.store(part + 2 * I + c, w1, mask=exists)
    tl.store(part + 3 * I + c, w0, mask=exists)
    tl.store(part + 4 * I + c, total, mask=exists)


@triton.jit(do_not_specialize=("length", "batch"))
def conv_backward(x, weight, bias, dout, dx, sums, length, batch, x_b, dx_b, dout_d, dout_b,
                  X_ROW: tl.constexpr, DX_ROW: tl.constexpr, DOUT_ROW: tl.constexpr, I: tl.constexpr,
                  TIMES: tl.constexpr, CHANNELS: tl.constexpr, FORWARD: tl.constexpr, BACKWARD: tl.constexpr,
                  HAS_BIAS: tl.constexpr, SILU: tl.constexpr):  # fmt: skip
    """One walk over TIMES positions. The last inputs and gradients of both directions stay in registers.

    f and b are the gradients before the activation of the forward and the backward direction. At time t, the inputs
    x_{t-3} .. x_t give f at t and b at t - 3; f_{t-3} .. f_t and b_{t-6} .. b_{t-3} give dx at t - 3. sums (time
    blocks, B, D, 5, I) gets the gradients of taps and bias."""
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    exists = c < I
    batch_index = tl.program_id(2).to(tl.int64)
    x += batch_index * x_b
    dx += batch_index * dx_b
    dout_f = dout + batch_index * dout_b
    second = dout_d if FORWARD else 0
    dout_b_ = dout + batch_index * dout_b + second
    first = tl.program_id(0) * TIMES
    last = first + TIMES
    at_b = I if FORWARD else 0  # offset of the backward direction's parameters
    zero = tl.zeros([CHANNELS], tl.float32)
    f_weight, b_weight = weight + c * 4, weight + (at_b + c) * 4
    wf0, wf1, wf2, wf3, bias_f = zero, zero, zero, zero, zero
    wb0, wb1, wb2, wb3, bias_b = zero, zero, zero, zero, zero
    if FORWARD:
        wf0 = tl.load(f_weight + 3, mask=exists, other=0.0)
        wf1 = tl.load(f_weight + 2, mask=exists, other=0.0)
        wf2 = tl.load(f_weight + 1, mask=exists, other=0.0)
        wf3 = tl.load(f_weight, mask=exists, other=0.0)
        if HAS_BIAS:
            bias_f = tl.load(bias + c, mask=exists, other=0.0)
    if BACKWARD:
        wb0 = tl.load(b_weight + 3, mask=exists, other=0.0)
        wb1 = tl.load(b_weight + 2, mask=exists, other=0.0)
        wb2 = tl.load(b_weight + 1, mask=exists, other=0.0)
        wb3 = tl.load(b_weight, mask=exists, other=0.0)
        if HAS_BIAS:
            bias_b = tl.load(bias + at_b + c, mask=exists, other=0.0)
    df0, df1, df2, df3, df = zero, zero, zero, zero, zero
    db0, db1, db2, db3, db = zero, zero, zero, zero, zero
    x1 = row(x, first - 1, X_ROW, c, exists & (first - 1 >= 0) & (first - 1 < length))
    x2 = row(x, first - 2, X_ROW, c, exists & (first - 2 >= 0) & (first - 2 < length))
    x3 = row(x, first - 3, X_ROW, c, exists & (first - 3 >= 0) & (first - 3 < length))
    f1, f2, f3 = zero, zero, zero
    b4, b5, b6 = zero, zero, zero
    for begin in range(first, last + 4, 4):
        for j in tl.static_range(4):
            t = begin + j
            p = t - 3
            x0 = row(x, t, X_ROW, c, exists & (t < length))
            f0 = zero
            if FORWARD:
                y = bias_f + wf0 * x0 + wf1 * x1 + wf2 * x2 + wf3 * x3
                f0 = _slope(y, row(dout_f, t, DOUT_ROW, c, exists & (t < length)), SILU)
                own = tl.where(t < last, f0, 0.0)
                df0 += own * x0
                df1 += own * x1
                df2 += own * x2
                df3 += own * x3
                df += own
            b3 = zero
            if BACKWARD:
                y = bias_b + wb0 * x3 + wb1 * x2 + wb2 * x1 + wb3 * x0
                b3 = _slope(y, row(dout_b_, p, DOUT_ROW, c, exists & (p >= 0) & (p < length)), SILU)
                own = tl.where((p >= first) & (p < last), b3, 0.0)
                db0 += own * x3
                db1 += own * x2
                db2 += own * x1
                db3 += own * x0
                db += own
            dx_c = wf0 * f3 + wf1 * f2 + wf2 * f1 + wf3 * f0 + wb0 * b3 + wb1 * b4 + wb2 * b5 + wb3 * b6
            tl.store(dx + p.to(tl.int64) * DX_ROW + c, dx_c, mask=exists & (p >= first) & (p < last) & (p < length))
            x1, x2, x3 = x0, x1, x2
            f1, f2, f3 = f0, f1, f2
            b4, b5, b6 = b3, b4, b5
    directions: tl.constexpr = FORWARD + BACKWARD
    part = sums + (tl.program_id(0) * batch + batch_index) * (directions * 5 * I)
    if FORWARD:
        _sums(part, c, exists, df0, df1, df2, df3, df, I)
    if BACKWARD:
        _sums(part + at_b * 5, c, exists, db0, db1, db2, db3, db, I)
