// Arguments of the patch kernels as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Voxel (b, c, z, y, x) of the volume is at b * batch_stride + c * contrast_stride + z * plane_stride + y * line_stride
// + x. Patch ids (batch, kept) count in raster order over a grid of grid_y * grid_x patches per layer. Rows of `rows`,
// (batch, kept, values), are contiguous, with values ordered (z, y, x, contrast) or, contrasts_first, (contrast, z, y, x).
// A comparison is of the values in `planes` planes of every patch from `first_plane` on.
#pragma once

#include <cstdint>

struct Patches {
    int64_t batch, kept, contrasts, patch, grid_y, grid_x, threads;
    int64_t batch_stride, contrast_stride, plane_stride, line_stride;
    int64_t first_plane, planes, contrasts_first, bfloat16_rows;
    const float* volume;
    const int64_t* ids;
    void* rows;       // out: the patches; or predictions of them, from which the targets are subtracted in place
    float* moments;   // (batch, kept, 2): a patch's mean, and 1 / the root of its variance + 1e-6, found where
                      // first_plane is 0 and read where it is not; null: 0 and 1
    double* squares;  // (batch, kept): the sum of (prediction - target)^2 is added
};
