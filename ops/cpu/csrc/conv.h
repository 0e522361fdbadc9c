// Arguments of the causal convolution as Python passes them (ops/cpu/library.py mirrors this struct field by field).
#pragma once

#include "layout.h"

struct Conv {
    int64_t directions, batch, length, channels, width;
    int64_t bfloat16_io, silu, reverse, accumulate, threads, splits;  // splits: ranges of time per sample
    Sequence x, out;
    const float *weight, *bias;  // (direction, channel, tap), (direction, channel); bias may be null
    // backward pass only; accumulate: add to dx instead of overwriting it
    Sequence dout, dx;
    float *dweight, *dbias;
};
