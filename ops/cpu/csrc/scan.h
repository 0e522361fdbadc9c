// The selective scan's arguments as Python passes them (ops/cpu/library.py mirrors this struct field by field).
//
// Channels are worked on in blocks of one register; a block never crosses a group, so the last block of a group may
// have idle lanes.
#pragma once

#include "layout.h"

struct Scan {
    int64_t directions, batch, length, channels, states, groups;
    int64_t bfloat16_io, bfloat16_states;  // sequences; B, C and their gradients
    int64_t softplus, reverse, accumulate, threads, splits;  // accumulate: out and dz are added to
    float factor;                 // of the output
    Sequence u, delta, z, out;    // z.data may be null, as D and bias, and out, where only the states are wanted
    const float *A, *D, *bias;    // (direction, channel, state), without state twice
    Matrix B, C;
    float* checkpoints;           // states before chunks 1, 2, ...: (direction, chunk, batch, block, state, lane), or null
    float* last;                  // (direction, batch, channel, state), or null
    // the backward pass only; du may be u's memory and ddelta delta's
    Sequence dout, du, ddelta, dz;
    float *dA, *dD, *dbias;       // one part per batch item: (direction, batch, channel, state), without state twice
    Matrix dB, dC;
};

constexpr int CHUNK = 16;  // steps between two stored states
