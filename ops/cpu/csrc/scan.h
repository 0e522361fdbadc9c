// Arguments of the selective scan as Python passes them (ops/cpu/library.py mirrors this struct field by field).
//
// Channels are computed in blocks as wide as one register. A block never crosses a group, so the last block of a group
// may have idle lanes.
#pragma once

#include "layout.h"

struct Scan {
    int64_t directions, batch, length, channels, states, groups;
    int64_t bfloat16_io, bfloat16_states;  // precision of the sequences; of B, C and their gradients
    int64_t softplus, reverse, accumulate, threads, splits;  // accumulate: add to out and dz
    float factor;                 // multiplies the output
    Sequence u, delta, z, out;    // z, D, bias may be null; out too, if only states are wanted
    const float *A, *D, *bias;    // A (direction, channel, state); D and bias (direction, channel)
    Matrix B, C;
    float* checkpoints;           // states before chunks 1, 2, ...: (direction, chunk, batch, block, state, lane), or null
    float* last;                  // (direction, batch, channel, state), or null
    // backward pass only; du may be the memory of u, and ddelta the memory of delta
    Sequence dout, du, ddelta, dz;
    float *dA, *dD, *dbias;       // one sum per sample: (direction, batch, channel, state), dD and dbias without state
    Matrix dB, dC;
};

constexpr int CHUNK = 16;  // steps between two stored states
