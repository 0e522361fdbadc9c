"""Patches of volumes as rows, and the squared error of predicted patches. One program per patch."""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false
import triton
import triton.language as tl


@triton.jit
def voxel(patch, p, grid_y, grid_x, c_stride, z_stride, y_stride, x_stride,
          PATCH: tl.constexpr, CONTRASTS: tl.constexpr, CONTRASTS_FIRST: tl.constexpr):  # fmt: skip
    """The offset of value p of a patch in its volume. Patches are numbered in raster order."""
    z, y, x = patch // (grid_y * grid_x), patch // grid_x % grid_y, patch % grid_x
    if CONTRASTS_FIRST:
        c = p // (PATCH * PATCH * PATCH)
        p %= PATCH * PATCH * PATCH
    else:
        c = p % CONTRASTS
        p //= CONTRASTS
    z = z * PATCH + p // (PATCH * PATCH)
    y = y * PATCH + p // PATCH % PATCH
    x = x * PATCH + p % PATCH
    return c * c_stride + z * z_stride + y * y_stride + x * x_stride


@triton.jit(do_not_specialize=("kept", "grid_y", "grid_x"))
def gather_rows(volume, ids, rows, kept, grid_y, grid_x, b_stride, c_stride, z_stride, y_stride, x_stride,
                PATCH: tl.constexpr, CONTRASTS: tl.constexpr, CONTRASTS_FIRST: tl.constexpr, P: tl.constexpr,
                VALUES: tl.constexpr):  # fmt: skip
    at = tl.program_id(0)
    patch = tl.load(ids + at)
    volume += (at // kept).to(tl.int64) * b_stride
    for first in tl.static_range(0, P, VALUES):
        p = first + tl.arange(0, VALUES)
        place = voxel(patch, p, grid_y, grid_x, c_stride, z_stride, y_stride, x_stride, PATCH, CONTRASTS,
                      CONTRASTS_FIRST)  # fmt: skip
        tl.store(rows + at.to(tl.int64) * P + p, tl.load(volume + place, mask=p < P), mask=p < P)


@triton.jit(do_not_specialize=("kept", "grid_y", "grid_x"))
def compare_rows(pred, volume, ids, difference, squares, kept, grid_y, grid_x,
                 b_stride, c_stride, z_stride, y_stride, x_stride,
                 PATCH: tl.constexpr, CONTRASTS: tl.constexpr, P: tl.constexpr, VALUES: tl.constexpr,
                 NORMALISE: tl.constexpr):  # fmt: skip
    """difference = pred - target, in pred's precision, and its sum of squares per patch, in float32.

    With NORMALISE, the target is the patch minus its mean, divided by the root of its unbiased variance + 1e-6.
    `difference` may be the memory of `pred`."""
    at = tl.program_id(0)
    patch = tl.load(ids + at)
    volume += (at // kept).to(tl.int64) * b_stride
    mean, inverse = 0.0, 1.0
    if NORMALISE:
        total = tl.zeros([VALUES], tl.float32)
        for first in range(0, P, VALUES):
            p = first + tl.arange(0, VALUES)
            place = voxel(patch, p, grid_y, grid_x, c_stride, z_stride, y_stride, x_stride, PATCH, CONTRASTS, False)
            total += tl.load(volume + place, mask=p < P, other=0.0)
        mean = tl.sum(total, axis=0) / P
        total = tl.zeros([VALUES], tl.float32)
        for first in range(0, P, VALUES):
            p = first + tl.arange(0, VALUES)
            place = voxel(patch, p, grid_y, grid_x, c_stride, z_stride, y_stride, x_stride, PATCH, CONTRASTS, False)
            centred = tl.where(p < P, tl.load(volume + place, mask=p < P, other=0.0) - mean, 0.0)
            total += centred * centred
        inverse = 1.0 / tl.sqrt(tl.sum(total, axis=0) / (P - 1) + 1e-6)
    total = tl.zeros([VALUES], tl.float32)
    for first in range(0, P, VALUES):
        p = first + tl.arange(0, VALUES)
        place = voxel(patch, p, grid_y, grid_x, c_stride, z_stride, y_stride, x_stride, PATCH, CONTRASTS, False)
        target = (tl.load(volume + place, mask=p < P, other=0.0) - mean) * inverse
        here = at.to(tl.int64) * P + p
        error = tl.load(pred + here, mask=p < P, other=0.0).to(tl.float32) - target
        error = tl.where(p < P, error, 0.0)
        tl.store(difference + here, error, mask=p < P)
        total += error * error
    tl.store(squares + at, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=("count",))
def scale_rows(difference, scale, out, count, VALUES: tl.constexpr):
    """out = difference * scale, computed in float32. scale is one number in GPU memory."""
    at = tl.program_id(0).to(tl.int64) * VALUES + tl.arange(0, VALUES)
    value = tl.load(difference + at, mask=at < count, other=0.0).to(tl.float32) * tl.load(scale)
    tl.store(out + at, value, mask=at < count)
