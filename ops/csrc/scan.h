// The selective scan's arguments as Python passes them (ops/cpu_library.py mirrors this struct field by field).
//
// Sequences are channel-last: element (b, t, i) is at b * batch + t * row + i. B and C are float32 with element
// (b, g, t, n) at b * batch + g * group + t * row + n. Channels are worked on in blocks of one register; a block never
// crosses a group, so the last block of a group may have idle lanes.
#pragma once

#include <cstdint>

struct Sequence {
    void* data;
    int64_t batch, row;
};

struct Matrix {
    float* data;
    int64_t batch, group, row;
};

struct Scan {
    int64_t batch, length, channels, states, groups;
    int64_t bfloat16_io, softplus, reverse, accumulate, threads, splits;  // accumulate: out and dz are added to
    Sequence u, delta, z, out;    // z.data may be null, as D and bias, and out, where only the states are wanted
    const float *A, *D, *bias;    // (channel, state), (channel), (channel)
    Matrix B, C;
    float* checkpoints;           // states before chunks 1, 2, ...: (chunk, batch, block, state, lane), or null
    float* last;                  // (batch, channel, state)
    // the backward pass only; dB and dC have one part per split of the channels, (split, batch, group, time, state);
    // du may be u's memory and ddelta delta's
    Sequence dout, du, ddelta, dz;
    float *dA, *dD, *dbias;       // one part per batch item: (batch, channel, state), (batch, channel) twice
    float *dB, *dC;               // zero at first
};

constexpr int CHUNK = 16;  // steps between two stored states
