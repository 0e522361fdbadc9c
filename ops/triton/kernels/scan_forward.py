"""Forward kernels of the selective scan. Time is cut into segments that run in parallel.

`scan_local` walks every segment from a zero state. `scan_carry` carries states over whole segments by exp(A * sum of
steps). `scan_final` walks again from the right states and writes the output. A program computes some channels. One
thread holds the whole state of each of its channels, so the sum over states stays inside a thread.
Layouts: u, delta (D, B, L, I), B and C (D, B, G, L, N) and z, out (B, L, I), with a dense last axis and row strides
that are compile-time constants; A (D, I, N), D and bias (D, I); states at segment borders (D, B, S, N, I) and sums of
steps (D, B, S, I). Segments are numbered by position in both directions. The second direction walks from the other end.
"""

# pyright: reportGeneralTypeIssues=false
import triton
import triton.language as tl

from ops.triton.kernels.maths import LOG2_E, row, sigmoid, softplus


@triton.jit
def channels_of(block, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):
    """(group, channels, mask of existing channels) of a block. A group has WIDTH channels; no block crosses a group."""
    per_group = (WIDTH + CHANNELS - 1) // CHANNELS
    group = block // per_group
    inside = (block % per_group) * CHANNELS + tl.arange(0, CHANNELS)
    return group, group * WIDTH + inside, inside < WIDTH


@triton.jit
def step_size(raw, here, SOFTPLUS: tl.constexpr):
    """The final delta. It is 0, which leaves the state unchanged, where there is no such position or channel."""
    if SOFTPLUS:
        raw = softplus(raw)
    return tl.where(here, raw, 0.0)


# Arguments that change with the length of the data. With specialisation, every length would compile new kernels.
VARYING = ("length", "batch", "steps", "segments", "factor", "B_d", "B_b", "B_g", "C_d", "C_b", "C_g")


@triton.jit(do_not_specialize=VARYING)
def scan_local(u, delta, A, B, bias, states, sums,
               length, batch, steps, segments, u_d, u_b, delta_d, delta_b, B_d, B_b, B_g,
               U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, B_ROW: tl.constexpr,
               I: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
               CHANNELS: tl.constexpr, UNROLL: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BIAS: tl.constexpr,
               REVERSE: tl.constexpr, REPLAY: tl.constexpr):  # fmt: skip
    """Without REPLAY: `states` gets the state after each segment, walked from zero, and `sums` its sum of steps.
    With REPLAY: walk from the state before each segment, which `sums` holds, and store in `states` the state before
    every UNROLL steps, (D, B, positions / UNROLL, N, I)."""
    segment = tl.program_id(0)
    group, c, exists = channels_of(tl.program_id(1), WIDTH, CHANNELS)
    d = (tl.program_id(2) // batch).to(tl.int64)
    b = (tl.program_id(2) % batch).to(tl.int64)
    n = tl.arange(0, NP)
    tile = n[:, None] * I + c[None, :]
    in_tile = (n < N)[:, None] & exists[None, :]
    A_tile = tl.load(A + d * I * N + c[None, :] * N + n[:, None], mask=in_tile, other=0.0) * LOG2_E
    bias_c = tl.zeros([CHANNELS], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + d * I + c, mask=exists, other=0.0)
    u += d * u_d + b * u_b
    delta += d * delta_d + b * delta_b
    B += d * B_d + b * B_b + group.to(tl.int64) * B_g
    border = (d * batch + b) * segments + segment
    backwards = (d & 1) ^ REVERSE
    sign = (1 - 2 * backwards).to(tl.int32)
    t = segment * steps + backwards.to(tl.int32) * (steps - 1)
    h = tl.zeros([NP, CHANNELS], tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    if REPLAY:
        h = tl.load(sums + border * N * I + tile, mask=in_tile, other=0.0)
        states += (d * batch + b) * segments * (steps // UNROLL) * N * I
    for _ in range(0, steps, UNROLL):
        if REPLAY:
            tl.store(states + (t // UNROLL).to(tl.int64) * N * I + tile, h, mask=in_tile)
        for _j in tl.static_range(UNROLL):
            is_time = t < length
            here = exists & is_time
            u_c = row(u, t, U_ROW, c, here)
            dt = step_size(row(delta, t, DELTA_ROW, c, here) + bias_c, here, SOFTPLUS)
            B_n = row(B, t, B_ROW, n, (n < N) & is_time)
            h = tl.exp2(dt[None, :] * A_tile) * h + (dt * u_c)[None, :] * B_n[:, None]
            total += dt
            t += sign
    if not REPLAY:
        tl.store(states + border * N * I + tile, h, mask=in_tile)
        tl.store(sums + border * I + c, total, mask=exists)


@triton.jit
def _end_of(A_c, states, sums, at, segments, place, sum_place, step, sum_step, mask):
    """(state at the end of segment `at`, walked from zero; the segment's decay; mask of existing segments)."""
    known = mask & (at < segments)
    end = tl.load(states + place + at * step, mask=known, other=0.0)
    decay = tl.exp2(tl.load(sums + sum_place + at * sum_step, mask=known, other=0.0) * A_c)
    return end, decay, known


@triton.jit(do_not_specialize=VARYING)
def scan_carry(A, ends, sums, starts, last, batch, segments,
               I: tl.constexpr, N: tl.constexpr, CHANNELS: tl.constexpr, REVERSE: tl.constexpr):  # fmt: skip
    """Computes the states before the segments, `starts`, from the states at their ends, walked from zero.

    `starts` may be the memory of `ends`. `last` (D, B, N, I) gets the state after the last segment. REVERSE is that of
    the first direction. Adjoint states are carried the other way."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.program_id(1)
    d = (tl.program_id(2) // batch).to(tl.int64)
    b = (tl.program_id(2) % batch).to(tl.int64)
    exists = c < I
    A_c = tl.load(A + d * I * N + c * N + n, mask=exists, other=0.0) * LOG2_E
    first = (d * batch + b) * segments
    backwards = ((d & 1) ^ REVERSE).to(tl.int64)
    sign = 1 - 2 * backwards
    first += backwards * (segments - 1)
    place, step = first * N * I + n * I + c, sign * N * I
    sum_place, sum_step = first * I + c, sign * I
    state = tl.zeros([CHANNELS], tl.float32)
    for at in range(0, segments, 4):  # loads first: for the compiler, a store may change what the next load reads
        e0, f0, k0 = _end_of(A_c, ends, sums, at, segments, place, sum_place, step, sum_step, exists)
        e1, f1, k1 = _end_of(A_c, ends, sums, at + 1, segments, place, sum_place, step, sum_step, exists)
        e2, f2, k2 = _end_of(A_c, ends, sums, at + 2, segments, place, sum_place, step, sum_step, exists)
        e3, f3, k3 = _end_of(A_c, ends, sums, at + 3, segments, place, sum_place, step, sum_step, exists)
        tl.store(starts + place + at * step, state, mask=k0)
        state = f0 * state + e0
        tl.store(starts + place + (at + 1) * step, state, mask=k1)
        state = f1 * state + e1
        tl.store(starts + place + (at + 2) * step, state, mask=k2)
        state = f2 * state + e2
        tl.store(starts + place + (at + 3) * step, state, mask=k3)
        state = f3 * state + e3
    tl.store(last + ((d * batch + b) * N + n) * I + c, state, mask=exists)


@triton.jit(do_not_specialize=VARYING)
def scan_final(u, delta, A, B, C, D, z, bias, starts, out,
               length, batch, steps, segments, factor,
               u_d, u_b, delta_d, delta_b, B_d, B_b, B_g, C_d, C_b, C_g, z_b, out_b,
               U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, B_ROW: tl.constexpr, C_ROW: tl.constexpr,
               Z_ROW: tl.constexpr, OUT_ROW: tl.constexpr,
               I: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
               CHANNELS: tl.constexpr, UNROLL: tl.constexpr, DIRECTIONS: tl.constexpr, SOFTPLUS: tl.constexpr,
               HAS_BIAS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr, REVERSE: tl.constexpr
               ):  # fmt: skip
    """out = factor * silu(z) * sum over directions of (<C, h> + D u). The second direction adds to the first one's
    result: the same threads wrote it, and it is still in the cache."""
    segment = tl.program_id(0)
    group, c, exists = channels_of(tl.program_id(1), WIDTH, CHANNELS)
    b = tl.program_id(2).to(tl.int64)
    n = tl.arange(0, NP)
    in_tile = (n < N)[:, None] & exists[None, :]
    z += b * z_b
    out += b * out_b
    for d in tl.static_range(DIRECTIONS):
        A_tile = tl.load(A + d * I * N + c[None, :] * N + n[:, None], mask=in_tile, other=0.0) * LOG2_E
        bias_c = tl.zeros([CHANNELS], tl.float32)
        if HAS_BIAS:
            bias_c = tl.load(bias + d * I + c, mask=exists, other=0.0)
        D_c = tl.zeros([CHANNELS], tl.float32)
        if HAS_D:
            D_c = tl.load(D + d * I + c, mask=exists, other=0.0)
        u_at = u + d * u_d + b * u_b
        delta_at = delta + d * delta_d + b * delta_b
        B_at = B + d * B_d + b * B_b + group.to(tl.int64) * B_g
        C_at = C + d * C_d + b * C_b + group.to(tl.int64) * C_g
        border = (d * batch + b) * segments + segment
        h = tl.load(starts + border * N * I + n[:, None] * I + c[None, :], mask=in_tile, other=0.0)
        t = segment * steps + ((d + REVERSE) % 2) * (steps - 1)
        for _ in range(0, steps, UNROLL):
            for _j in tl.static_range(UNROLL):
                is_time = t < length
                here = exists & is_time
                u_c = row(u_at, t, U_ROW, c, here)
                dt = step_size(row(delta_at, t, DELTA_ROW, c, here) + bias_c, here, SOFTPLUS)
                B_n = row(B_at, t, B_ROW, n, (n < N) & is_time)
                C_n = row(C_at, t, C_ROW, n, (n < N) & is_time)
                h = tl.exp2(dt[None, :] * A_tile) * h + (dt * u_c)[None, :] * B_n[:, None]
                y = (tl.sum(h * C_n[:, None], axis=0) + D_c * u_c) * factor
                if HAS_Z:
                    z_c = row(z, t, Z_ROW, c, here)
                    y = y * z_c * sigmoid(z_c)
                if d > 0:
                    y += row(out, t, OUT_ROW, c, here)
                tl.store(out + t.to(tl.int64) * OUT_ROW + c, y, mask=here)
                t += 1 - 2 * ((d + REVERSE) % 2)
        tl.debug_barrier()
