// Arguments of the resampling kernel as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Volumes (batch, channels, z, y, x) are contiguous. Voxel p of `out` is read at place back[:, :3] p + back[:, 3] of
// `volume`, in voxels, (z, y, x) throughout.
#pragma once

#include <cstdint>

struct Resample {
    int64_t batch, channels, z, y, x, threads;
    const double* back;  // (batch, 3, 4)
    const float* volume;
    float* out;
};
