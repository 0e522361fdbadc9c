// Arguments of the patch kernels as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Voxel (b, c, z, y, x) of the volume is at b * batch_stride + c * contrast_stride + z * plane_stride + y * line_stride
// + x. Patch ids (batch, kept) count in raster order over a grid of grid_z layers of grid_y * grid_x patches. `rows` (batch,
// kept, values) is contiguous, with values ordered (z, y, x, contrast), or (contrast, z, y, x) with contrasts_first.
// A call of patches_compare compares `planes` planes of every patch, from `first_plane` on.
#pragma once

#include <cstdint>

struct Patches {
    int64_t batch, kept, contrasts, patch, grid_z, grid_y, grid_x, threads;
    int64_t batch_stride, contrast_stride, plane_stride, line_stride;
    int64_t first_plane, planes, contrasts_first, bfloat16_rows;
    const float* volume;
    const int64_t* ids;
    void* rows;       // patches_gather writes the patches; patches_compare replaces predictions by their errors
    float* moments;   // (batch, kept, 2): each patch's mean and 1 / sqrt(variance + 1e-6), computed if first_plane is 0
                      // and read otherwise; null: targets are not normalised
    double* squares;  // (batch, kept): the sum of (prediction - target)^2 is added
};
