// The causal convolution's arguments as Python passes them (ops/cpu_library.py mirrors this struct field by field).
#pragma once

#include <cstdint>

#include "scan.h"

struct Conv {
    int64_t batch, length, channels, width;
    int64_t bfloat16_io, silu, reverse, accumulate, threads, splits;  // splits: ranges of time per batch item
    Sequence x, out;
    const float *weight, *bias;  // weight (width, channels); bias may be null
    // the backward pass only; one part per (batch, split), zero at first; accumulate: dx is added to
    Sequence dout, dx;
    float *dweight, *dbias;  // (batch, split, width, channels) and (batch, split, channels)
};
