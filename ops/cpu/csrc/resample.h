// Arguments of the resampling kernel as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Volumes (batch, channels, z, y, x) are contiguous. Voxel p of `out` is the value at back[:, :3] p + back[:, 3] of
// `volume`. All positions are in voxels, (z, y, x).
#pragma once

#include <cstdint>

struct Resample {
    int64_t batch, channels, z, y, x, threads;
    const double* back;  // (batch, 3, 4)
    const float* volume;
    float* out;
};
