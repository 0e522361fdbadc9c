"""Backward kernels of the selective scan; layouts and segments as in ops/triton/kernels/scan_forward.py.

The adjoint state is g_t = C_t dy_t + a_{t+1}, a_t = exp(delta_t A) g_t. `adjoint_local` walks every segment backwards
from zero. `scan_carry` carries a over segments. `scan_local` replays the states before every four steps. `scan_main`
walks those steps backwards, a few states at a time, and computes all gradients. No sum uses atomic additions: each
program writes its own partial sum.
"""

# pyright: reportGeneralTypeIssues=false
import triton
import triton.language as tl

from ops.triton.kernels.maths import LN_2, LOG2_E, row, sigmoid, silu_slope
from ops.triton.kernels.scan_forward import VARYING, channels_of, step_size


@triton.jit(do_not_specialize=VARYING)
def adjoint_local(delta, A, C, z, bias, dout, ends, sums,
                  length, batch, steps, segments, factor,
                  delta_d, delta_b, C_d, C_b, C_g, z_b, dout_b,
                  DELTA_ROW: tl.constexpr, C_ROW: tl.constexpr, Z_ROW: tl.constexpr, DOUT_ROW: tl.constexpr,
                  I: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, NP: tl.constexpr,
                  CHANNELS: tl.constexpr, UNROLL: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BIAS: tl.constexpr,
                  HAS_Z: tl.constexpr, REVERSE: tl.constexpr):  # fmt: skip
    """`ends` (D, B, S, N, I) gets the adjoint state at each segment's start in the walk, from zero at its end."""
    segment = tl.program_id(0)
    group, c, exists = channels_of(tl.program_id(1), WIDTH, CHANNELS)
    d = (tl.program_id(2) // batch).to(tl.int64)
    b = (tl.program_id(2) % batch).to(tl.int64)
    n = tl.arange(0, NP)
    in_tile = (n < N)[:, None] & exists[None, :]
    A_tile = tl.load(A + d * I * N + c[None, :] * N + n[:, None], mask=in_tile, other=0.0) * LOG2_E
    bias_c = tl.zeros([CHANNELS], tl.float32)
    if HAS_BIAS:
        bias_c = tl.load(bias + d * I + c, mask=exists, other=0.0)
    delta += d * delta_d + b * delta_b
    C += d * C_d + b * C_b + group.to(tl.int64) * C_g
    z += b * z_b
    dout += b * dout_b
    backwards = (d & 1) ^ REVERSE
    sign = (2 * backwards - 1).to(tl.int32)
    t = segment * steps + (1 - backwards).to(tl.int32) * (steps - 1)
    a = tl.zeros([NP, CHANNELS], tl.float32)
    total = tl.zeros([CHANNELS], tl.float32)
    for _ in range(0, steps, UNROLL):
        for _j in tl.static_range(UNROLL):
            is_time = t < length
            here = exists & is_time
            dt = step_size(row(delta, t, DELTA_ROW, c, here) + bias_c, here, SOFTPLUS)
            C_n = row(C, t, C_ROW, n, (n < N) & is_time)
            dy = row(dout, t, DOUT_ROW, c, here) * factor
            if HAS_Z:
                z_c = row(z, t, Z_ROW, c, here)
                dy = dy * z_c * sigmoid(z_c)
            a = tl.exp2(dt[None, :] * A_tile) * (C_n[:, None] * dy[None, :] + a)
            total += dt
            t += sign
    border = (d * batch + b) * segments + segment
    tl.store(ends + border * N * I + n[:, None] * I + c[None, :], a, mask=in_tile)
    tl.store(sums + border * I + c, total, mask=exists)


@triton.jit
def load_channels(parameter, c, exists, IS_GIVEN: tl.constexpr):
    """One number per channel, 0 without the parameter. It is loaded where it is needed, because registers are few."""
    if IS_GIVEN:
        return tl.load(parameter + c, mask=exists, other=0.0)
    return tl.zeros(c.shape, tl.float32)


@triton.jit
def _load_step(u, delta, dout, z, bias_c, t, length, c, exists, factor,
           U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, Z_ROW: tl.constexpr, DOUT_ROW: tl.constexpr,
           SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr):  # fmt: skip
    """(delta u, delta, gradient of y) of one step."""
    here = exists & (t < length)
    dt = step_size(row(delta, t, DELTA_ROW, c, here) + bias_c, here, SOFTPLUS)
    dy = row(dout, t, DOUT_ROW, c, here) * factor
    if HAS_Z:
        z_c = row(z, t, Z_ROW, c, here)
        dy = dy * z_c * sigmoid(z_c)
    return dt * row(u, t, U_ROW, c, here), dt, dy


@triton.jit
def _store_step(u, delta, dout, z, du, ddelta, dz, out, bias_c, D_c, s, r, y, dt, dy, t, length, c, exists, factor,
            U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, Z_ROW: tl.constexpr, DOUT_ROW: tl.constexpr,
            DZ_ROW: tl.constexpr, I: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_Z: tl.constexpr,
            HAS_OUT: tl.constexpr, ADD: tl.constexpr):  # fmt: skip
    """Store the gradients of one step from its sums over states: s of g B, r of g h' A, y of C h.

    Returns the gradients of the step size before softplus and of D. ADD: add to the first direction's dz and out."""
    here = exists & (t < length)
    u_c = row(u, t, U_ROW, c, here)
    draw = u_c * s + r * LN_2
    if SOFTPLUS:
        draw *= sigmoid(row(delta, t, DELTA_ROW, c, here) + bias_c)
    t64 = t.to(tl.int64)
    tl.store(du + t64 * I + c, dt * s + D_c * dy, mask=here)
    tl.store(ddelta + t64 * I + c, draw, mask=here)
    if HAS_Z:
        z_c = row(z, t, Z_ROW, c, here)
        y = (y + D_c * u_c) * factor
        dz_c = row(dout, t, DOUT_ROW, c, here) * y * silu_slope(z_c)
        if ADD:
            dz_c += row(dz, t, DZ_ROW, c, here)
        tl.store(dz + t64 * DZ_ROW + c, dz_c, mask=here)
        if HAS_OUT:
            out_c = y * z_c * sigmoid(z_c)
            if ADD:
                out_c += row(out, t, I, c, here)
            tl.store(out + t64 * I + c, out_c, mask=here)
    return tl.where(here, draw, 0.0), dy * u_c


@triton.jit
def _gradients_of_B_and_C(dBC, t, length, n, g, h, x, dy, N: tl.constexpr):
    """Store the sums over this program's channels."""
    known = (n < N) & (t < length)
    place = dBC + t.to(tl.int64) * (2 * N) + n
    tl.store(place, tl.sum(g * x[None, :], axis=1), mask=known)
    tl.store(place + N, tl.sum(h * dy[None, :], axis=1), mask=known)


@triton.jit(do_not_specialize=VARYING)
def scan_main(u, delta, A, B, C, D, z, bias, dout, states, carries, du, ddelta, dz, out, dA, dBC, dD, dbias,
              length, batch, steps, segments, factor,
              u_b, delta_b, B_b, B_g, C_b, C_g, z_b, dout_b, dz_b,
              U_ROW: tl.constexpr, DELTA_ROW: tl.constexpr, B_ROW: tl.constexpr, C_ROW: tl.constexpr,
              Z_ROW: tl.constexpr, DOUT_ROW: tl.constexpr, DZ_ROW: tl.constexpr,
              I: tl.constexpr, WIDTH: tl.constexpr, N: tl.constexpr, NP: tl.constexpr, NT: tl.constexpr,
              CHANNELS: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_D: tl.constexpr,
              HAS_Z: tl.constexpr, HAS_OUT: tl.constexpr, BACKWARDS: tl.constexpr, ADD: tl.constexpr
              ):  # fmt: skip
    """Gradients of one direction; the pointers point to its tensors.

    states (B, positions / 4, N, I) comes from the replay. carries (B, S, N, I) holds the adjoint states after each
    segment and is overwritten. dA (B, S, N, I), dD and dbias (B, S, I) must be zero. dBC is (channel blocks of a group,
    B, G, L, 2 N)."""
    segment = tl.program_id(0)
    group, c, exists = channels_of(tl.program_id(1), WIDTH, CHANNELS)
    b = tl.program_id(2).to(tl.int64)
    per_group = (WIDTH + CHANNELS - 1) // CHANNELS
    u += b * u_b
    delta += b * delta_b
    B += b * B_b + group.to(tl.int64) * B_g
    C += b * C_b + group.to(tl.int64) * C_g
    z += b * z_b
    dout += b * dout_b
    dz += b * dz_b
    du += b * length * I
    ddelta += b * length * I
    out += b * length * I
    border = b * segments + segment
    carries += border * N * I
    dA += border * N * I
    dD += border * I
    dbias += border * I
    states += b * segments * (steps // 4) * N * I
    part = (tl.program_id(1) % per_group) * batch + b
    dBC += (part * (I // WIDTH) + group) * length * (2 * N)
    sign: tl.constexpr = 1 - 2 * BACKWARDS
    zero = tl.zeros([CHANNELS], tl.float32)
    t0 = segment * steps + (steps - 4 if BACKWARDS == 0 else 3)  # the first step of the last block of the walk
    for _ in range(0, steps, 4):
        t1 = t0 + sign
        t2 = t1 + sign
        t3 = t2 + sign
        bias_c = load_channels(bias, c, exists, HAS_BIAS)
        x0, dt0, dy0 = _load_step(u, delta, dout, z, bias_c, t0, length, c, exists, factor,
                              U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, SOFTPLUS, HAS_Z)  # fmt: skip
        x1, dt1, dy1 = _load_step(u, delta, dout, z, bias_c, t1, length, c, exists, factor,
                              U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, SOFTPLUS, HAS_Z)  # fmt: skip
        x2, dt2, dy2 = _load_step(u, delta, dout, z, bias_c, t2, length, c, exists, factor,
                              U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, SOFTPLUS, HAS_Z)  # fmt: skip
        x3, dt3, dy3 = _load_step(u, delta, dout, z, bias_c, t3, length, c, exists, factor,
                              U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, SOFTPLUS, HAS_Z)  # fmt: skip
        block = states + (t0 // 4).to(tl.int64) * N * I
        s0, s1, s2, s3 = zero, zero, zero, zero
        r0, r1, r2, r3 = zero, zero, zero, zero
        y0, y1, y2, y3 = zero, zero, zero, zero
        for q in range(0, NP, NT):
            n = q + tl.arange(0, NT)
            tile = n[:, None] * I + c[None, :]
            in_tile = (n < N)[:, None] & exists[None, :]
            A_q = tl.load(A + c[None, :] * N + n[:, None], mask=in_tile, other=0.0) * LOG2_E
            h = tl.load(block + tile, mask=in_tile, other=0.0)
            B0 = row(B, t0, B_ROW, n, (n < N) & (t0 < length))[:, None]
            B1 = row(B, t1, B_ROW, n, (n < N) & (t1 < length))[:, None]
            B2 = row(B, t2, B_ROW, n, (n < N) & (t2 < length))[:, None]
            B3 = row(B, t3, B_ROW, n, (n < N) & (t3 < length))[:, None]
            C0 = row(C, t0, C_ROW, n, (n < N) & (t0 < length))[:, None]
            C1 = row(C, t1, C_ROW, n, (n < N) & (t1 < length))[:, None]
            C2 = row(C, t2, C_ROW, n, (n < N) & (t2 < length))[:, None]
            C3 = row(C, t3, C_ROW, n, (n < N) & (t3 < length))[:, None]
            e0 = tl.exp2(dt0[None, :] * A_q)
            e1 = tl.exp2(dt1[None, :] * A_q)
            e2 = tl.exp2(dt2[None, :] * A_q)
            e3 = tl.exp2(dt3[None, :] * A_q)
            h0 = e0 * h + x0[None, :] * B0
            h1 = e1 * h0 + x1[None, :] * B1
            h2 = e2 * h1 + x2[None, :] * B2
            h3 = e3 * h2 + x3[None, :] * B3
            if HAS_Z:
                y0 += tl.sum(C0 * h0, axis=0)
                y1 += tl.sum(C1 * h1, axis=0)
                y2 += tl.sum(C2 * h2, axis=0)
                y3 += tl.sum(C3 * h3, axis=0)
            a = tl.load(carries + tile, mask=in_tile, other=0.0)
            g = a + C3 * dy3[None, :]
            _gradients_of_B_and_C(dBC, t3, length, n, g, h3, x3, dy3, N)
            s3 += tl.sum(g * B3, axis=0)
            a = e3 * g
            p = a * h2
            r3 += tl.sum(p * A_q, axis=0)
            dA_q = p * dt3[None, :]
            g = a + C2 * dy2[None, :]
            _gradients_of_B_and_C(dBC, t2, length, n, g, h2, x2, dy2, N)
            s2 += tl.sum(g * B2, axis=0)
            a = e2 * g
            p = a * h1
            r2 += tl.sum(p * A_q, axis=0)
            dA_q += p * dt2[None, :]
            g = a + C1 * dy1[None, :]
            _gradients_of_B_and_C(dBC, t1, length, n, g, h1, x1, dy1, N)
            s1 += tl.sum(g * B1, axis=0)
            a = e1 * g
            p = a * h0
            r1 += tl.sum(p * A_q, axis=0)
            dA_q += p * dt1[None, :]
            g = a + C0 * dy0[None, :]
            _gradients_of_B_and_C(dBC, t0, length, n, g, h0, x0, dy0, N)
            s0 += tl.sum(g * B0, axis=0)
            a = e0 * g
            p = a * h
            r0 += tl.sum(p * A_q, axis=0)
            dA_q += p * dt0[None, :]
            tl.store(carries + tile, a, mask=in_tile)
            tl.store(dA + tile, tl.load(dA + tile, mask=in_tile, other=0.0) + dA_q, mask=in_tile)
        bias_c = load_channels(bias, c, exists, HAS_BIAS)
        D_c = load_channels(D, c, exists, HAS_D)
        b3, w3 = _store_step(u, delta, dout, z, du, ddelta, dz, out, bias_c, D_c, s3, r3, y3, dt3, dy3, t3, length, c,
                         exists, factor, U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, DZ_ROW, I, SOFTPLUS, HAS_Z, HAS_OUT,
                         ADD)  # fmt: skip
        b2, w2 = _store_step(u, delta, dout, z, du, ddelta, dz, out, bias_c, D_c, s2, r2, y2, dt2, dy2, t2, length, c,
                         exists, factor, U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, DZ_ROW, I, SOFTPLUS, HAS_Z, HAS_OUT,
                         ADD)  # fmt: skip
        b1, w1 = _store_step(u, delta, dout, z, du, ddelta, dz, out, bias_c, D_c, s1, r1, y1, dt1, dy1, t1, length, c,
                         exists, factor, U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, DZ_ROW, I, SOFTPLUS, HAS_Z, HAS_OUT,
                         ADD)  # fmt: skip
        b0, w0 = _store_step(u, delta, dout, z, du, ddelta, dz, out, bias_c, D_c, s0, r0, y0, dt0, dy0, t0, length, c,
                         exists, factor, U_ROW, DELTA_ROW, Z_ROW, DOUT_ROW, DZ_ROW, I, SOFTPLUS, HAS_Z, HAS_OUT,
                         ADD)  # fmt: skip
        tl.store(dbias + c, tl.load(dbias + c, mask=exists, other=0.0) + b0 + b1 + b2 + b3, mask=exists)
        tl.store(dD + c, tl.load(dD + c, mask=exists, other=0.0) + w0 + w1 + w2 + w3, mask=exists)
        tl.debug_barrier()  # the sums above are read again in the next step
        t0 -= 4 * sign
