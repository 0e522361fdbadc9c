"""Scaled sum, rotation of channel pairs and RMSNorm of rows (tokens) of E channels, and their gradients.

EP is E rounded up to a power of two.
"""

# pyright: reportArgumentType=false
import triton
import triton.language as tl


@triton.jit
def rotate(x, rotation, e, mask, ROWS_E: tl.constexpr, BACK: tl.constexpr):
    """Pairs (x[2i], x[2i+1]) multiplied by the unit complex numbers of `rotation`, or by their conjugates."""
    even, odd = tl.split(tl.reshape(x, [ROWS_E // 2, 2]))
    cosine, sine = tl.split(tl.reshape(tl.load(rotation + e, mask=mask, other=0.0), [ROWS_E // 2, 2]))
    if BACK:
        sine = -sine
    return tl.reshape(tl.join(even * cosine - odd * sine, even * sine + odd * cosine), [ROWS_E])


@triton.jit(do_not_specialize=("eps", "rows", "length", "rotation_b"))
def add_norm_forward(hidden, residual, rotation, weight, scale, normed, total, eps, length, rotation_b,
                     E: tl.constexpr, EP: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_ROTATION: tl.constexpr,
                     HAS_SCALE: tl.constexpr, HAS_TOTAL: tl.constexpr):  # fmt: skip
    """total = rotate(scale * hidden + residual) and its norm. One program per row."""
    at = tl.program_id(0)
    b, t = at // length, at % length
    e = tl.arange(0, EP)
    mask = e < E
    place = at.to(tl.int64) * E + e
    x = tl.load(hidden + place, mask=mask, other=0.0).to(tl.float32)
    if HAS_SCALE:
        x *= tl.load(scale + b)
    if HAS_RESIDUAL:
        x += tl.load(residual + place, mask=mask, other=0.0)
    if HAS_ROTATION:
        x = rotate(x, rotation + (b.to(tl.int64) * rotation_b + t) * E, e, mask, EP, False)
    if HAS_TOTAL:
        tl.store(total + place, x, mask=mask)
    inverse = tl.rsqrt(tl.sum(x * x, axis=0) / E + eps)
    w = tl.load(weight + e, mask=mask, other=0.0).to(tl.float32)
    tl.store(normed + place, x * inverse * w, mask=mask)


@triton.jit(do_not_specialize=("eps", "rows", "length", "rotation_b"))
def add_norm_backward(dnormed, dtotal, total, rotation, weight, scale, dresidual, dhidden, dweight, eps, rows, length,
                      rotation_b, E: tl.constexpr, EP: tl.constexpr, HAS_ROTATION: tl.constexpr,
                      HAS_SCALE: tl.constexpr, HAS_HIDDEN: tl.constexpr):  # fmt: skip
    """Each program takes every num_programs-th row and writes its own partial sum of the weight's gradient."""
    e = tl.arange(0, EP)
    mask = e < E
    w = tl.load(weight + e, mask=mask, other=0.0).to(tl.float32)
    dw = tl.zeros([EP], tl.float32)
    for step in range(0, tl.cdiv(rows, tl.num_programs(0))):
        at = tl.program_id(0) + step * tl.num_programs(0)
        mask = (e < E) & (at < rows)
        b, t = at // length, at % length
        place = at.to(tl.int64) * E + e
        x = tl.load(total + place, mask=mask, other=0.0)
        dy = tl.load(dnormed + place, mask=mask, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(tl.sum(x * x, axis=0) / E + eps)
        x *= inverse
        dw += dy * x
        dy *= w
        dx = (dy - x * (tl.sum(dy * x, axis=0) / E)) * inverse + tl.load(dtotal + place, mask=mask, other=0.0)
        if HAS_ROTATION:
            dx = rotate(dx, rotation + (b.to(tl.int64) * rotation_b + t) * E, e, mask, EP, True)
        tl.store(dresidual + place, dx, mask=mask)
        if HAS_HIDDEN:
            if HAS_SCALE:
                dx *= tl.load(scale + b, mask=at < rows, other=0.0)
            tl.store(dhidden + place, dx, mask=mask)
    tl.store(dweight + tl.program_id(0).to(tl.int64) * E + e, dw, mask=e < E)
