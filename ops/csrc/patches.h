// Arguments of the patch kernels as Python passes them (ops/cpu_library.py mirrors this struct).
//
// Voxel (b, c, z, y, x) of the volume is at b * batch_stride + c * contrast_stride + z * plane_stride + y * line_stride
// + x. Patch ids (batch, kept) count in raster order over a grid of grid_y * grid_x patches per layer. Rows of `rows`,
// (batch, kept, values), are contiguous, with values ordered (z, y, x, contrast) or, contrasts_first, (contrast, z, y, x).
#pragma once

#include <cstdint>

struct Patches {
    int64_t batch, kept, contrasts, patch, grid_y, grid_x, threads;
    int64_t batch_stride, contrast_stride, plane_stride, line_stride;
    int64_t contrasts_first, normalise, bfloat16_rows;
    const float* volume;
    const int64_t* ids;
    const void* pred;  // rows of predictions, or null in gathering
    void* rows;        // out: the patches, or pred - target
    double* squares;   // out (batch, kept): sum of (pred - target)^2 of each row
};
