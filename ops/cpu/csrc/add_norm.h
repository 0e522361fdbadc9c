// Arguments of the fused add, rotation and norm as Python passes them (ops/cpu/library.py mirrors this struct).
//
// Row (b, t) of every (batch, length, width) array starts at (b * length + t) * width; `rotation` holds cosine and sine
// of channel pair i at 2i and 2i + 1 of its row. If rotation_batch is 0, all samples share one rotation.
#pragma once

#include <cstdint>

struct AddNorm {
    int64_t batch, length, width, rotation_batch, threads;
    int64_t bfloat16_hidden, bfloat16_normed;
    float eps;
    void *hidden, *normed;             // in the backward pass, their gradients; hidden may be null there
    const float *scale;                // (batch): a factor of hidden; scale, residual and rotation may be null
    const float *residual, *rotation, *weight;
    float* total;
    // backward pass only: gradients of total, of residual, and of weight as one sum per thread (threads, width)
    const float* dtotal;
    float *dresidual, *dweight;
};
