// Arguments of the fused add, rotation and norm as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Row (b, t) of every (batch, length, width) array starts at (b * length + t) * width; `rotation` holds cosine and sine
// of channel pair i at 2i and 2i + 1 of its row, with one batch item for all if rotation_batch is 0.
#pragma once

#include <cstdint>

struct AddNorm {
    int64_t batch, length, width, rotation_batch, threads;
    int64_t bfloat16_hidden, bfloat16_normed;
    float eps;
    void *hidden, *normed;             // in the backward pass their gradients; hidden may be null there
    const float *scale;                // (batch), factor of hidden; may be null, as residual and rotation
    const float *residual, *rotation, *weight;
    float* total;
    // the backward pass only: what arrives at total, what leaves to residual, (threads, width)
    const float* dtotal;
    float *dresidual, *dweight;
};
