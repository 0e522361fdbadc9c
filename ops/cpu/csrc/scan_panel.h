// How a scan's work is split: panels of channel blocks, chunks of steps, and what both passes share.
//
// A thread computes one sample and a range of channel blocks, in all directions one after the other. The range is cut
// into panels that fit the cache. The thread walks over chunks of CHUNK steps. Inside a chunk, a first pass reads the
// rows of the panel in memory order and prepares the step sizes. Then the recurrence runs block by block in the cache,
// with several states at a time in registers ("tile"). A last pass writes rows. Results depend only on `splits`.
#pragma once

#include "buffer.h"
#include "debug.h"
#include "scan.h"
#include "vec.h"

namespace {

// Blocks of a panel: reading whole rows is fastest, but the panel's working memory must fit into a core's own cache.
constexpr int64_t FORWARD_PANEL = 64, BACKWARD_PANEL = 48;

struct Block {
    int64_t index, group, channel;  // channel: the first one of the block
    int lanes;
};

struct Shape {
    int64_t width, per_group, blocks, chunks;  // width: channels per group

    explicit Shape(const Scan& s)
        : width(s.channels / s.groups),
          per_group((width + WIDTH - 1) / WIDTH),
          blocks(per_group * s.groups),
          chunks((s.length + CHUNK - 1) / CHUNK) {}

    Block block(int64_t index) const {
        const int64_t group = index / per_group, inside = (index % per_group) * WIDTH, left = width - inside;
        return {index, group, group * width + inside, int(left < WIDTH ? left : WIDTH)};
    }
};

// One chunk: step j is position first + j * sign.
struct Steps {
    int64_t sign, first;
    int count;

    Steps(const Scan& s, int64_t chunk) : sign(s.reverse ? -1 : 1) {
        const int64_t begin = chunk * CHUNK, left = s.length - begin;
        count = int(left < CHUNK ? left : CHUNK);
        first = s.reverse ? s.length - 1 - begin : begin;
    }
    int64_t position(int j) const { return first + j * sign; }
};

template <class T> inline T* at(const Sequence& x, int64_t b, int64_t t, int64_t i) {
    return static_cast<T*>(x.data) + b * x.batch + t * x.row + i;
}

template <class T> inline T* at(const Matrix& x, int64_t b, int64_t g, int64_t t) {
    return static_cast<T*>(x.data) + b * x.batch + g * x.group + t * x.row;
}

// Write a register, or add it to the other direction's result.
template <class T> inline void put(const Scan& s, T* place, vf x, int lanes) {
    store(place, s.accumulate ? load(place, lanes) + x : x, lanes);
}

float* checkpoint(const Scan& s, const Shape& shape, int64_t chunk, int64_t b, int64_t k) {
    return s.checkpoints + (((chunk - 1) * s.batch + b) * shape.blocks + k) * s.states * WIDTH;
}

inline vf per_channel(const float* values, const Block& k) { return values ? load(values + k.channel, k.lanes) : vf{}; }

// Prefetch the rows of the next chunk. They lie on other pages, which the hardware prefetcher does not reach.
template <class T>
inline void expect(const Sequence& x, const Scan& s, const Block& k, int64_t b, int64_t t, int64_t ahead) {
    const int64_t next = t + (s.reverse ? -ahead : ahead);
    if (x.data && next >= 0 && next < s.length) __builtin_prefetch(at<T>(x, b, next, k.channel), 0, 2);
}

// One block's chunk: what does not depend on the state, and the sums over its states.
struct Forward {
    vf dt[CHUNK], dtu[CHUNK], y[CHUNK];
};

// delta + bias, before softplus.
template <class T> inline vf raw_step(const Scan& s, const Block& k, int64_t b, int64_t t) {
    return load(at<T>(s.delta, b, t, k.channel), k.lanes) + per_channel(s.bias, k);
}

// B or C for a chunk's steps in float32: column(j)[n].
class Columns {
  public:
    explicit Columns(int64_t states) : states(states), memory(CHUNK * states) {}
    void read(const Scan& s, const Matrix& m, int64_t b, int64_t g, const Steps& steps) {
        if (s.bfloat16_states)
            copy<bfloat16>(m, b, g, steps);
        else
            copy<float>(m, b, g, steps);
    }
    const float* operator()(int j) const { return memory.data + j * states; }

  private:
    template <class T> void copy(const Matrix& m, int64_t b, int64_t g, const Steps& steps) {
        for (int j = 0; j < steps.count; ++j)
            convert(at<T>(m, b, g, steps.position(j)), memory.data + j * states, states);
    }
    int64_t states;
    Buffer<float> memory;
};

struct Panel {
    int64_t direction, batch, split, index, begin, end;  // index: of this split's panels
};

// A panel's blocks. Copies their states or rates A between (block, state, lane) and (channel, state).
struct Blocks {
    Block at[FORWARD_PANEL];
    int64_t count, states;

    Blocks(const Scan& s, const Shape& shape, const Panel& p) : count(p.end - p.begin), states(s.states) {
        for (int64_t k = 0; k < count; ++k) at[k] = shape.block(p.begin + k);
    }
    void gather(const float* matrix, float scale, float* blocked) const {
        std::memset(blocked, 0, count * states * WIDTH * sizeof(float));
        each([&](int64_t outside, int64_t inside) { blocked[inside] = matrix[outside] * scale; });
    }
    void scatter(const float* blocked, float* matrix) const {
        each([&](int64_t outside, int64_t inside) { matrix[outside] = blocked[inside]; });
    }

  private:
    template <class Copy> void each(Copy copy) const {
        for (int64_t k = 0; k < count; ++k)
            for (int64_t n = 0; n < states; ++n)
                for (int i = 0; i < at[k].lanes; ++i)
                    copy((at[k].channel + i) * states + n, (k * states + n) * WIDTH + i);
    }
};

// Ranges of a panel's blocks that belong to one group.
template <class Run> void for_each_group(const Blocks& blocks, Run run) {
    for (int64_t first = 0, end; first < blocks.count; first = end) {
        const int64_t group = blocks.at[first].group;
        for (end = first; end < blocks.count && blocks.at[end].group == group;) ++end;
        run(group, first, end);
    }
}

// The scan of direction d alone.
Scan direction(Scan s, const Shape& shape, int64_t d) {
    const int64_t channels = d * s.channels, states = channels * s.states;
    for (Sequence* x : {&s.u, &s.delta, &s.z, &s.out, &s.dout, &s.du, &s.ddelta, &s.dz})
        start_at(*x, d, s.bfloat16_io ? 2 : 4);
    for (Matrix* x : {&s.B, &s.C, &s.dB, &s.dC}) start_at(*x, d, s.bfloat16_states ? 2 : 4);
    start_at(s.A, states);
    start_at(s.D, channels);
    start_at(s.bias, channels);
    start_at(s.checkpoints, d * (shape.chunks - 1) * s.batch * shape.blocks * s.states * WIDTH);
    start_at(s.last, s.batch * states);
    start_at(s.dA, s.batch * states);
    start_at(s.dD, s.batch * channels);
    start_at(s.dbias, s.batch * channels);
    s.reverse = (s.reverse + d) % 2;
    s.accumulate |= d > 0;
    return s;
}

template <class Run> void for_each_panel(const Scan& s, int64_t size, Run run) {
    const Shape shape(s);
    const int64_t items = s.batch * s.splits;
    REQUIRE(s.directions == 1 || s.directions == 2);
    REQUIRE(s.batch >= 1 && s.length >= 1 && s.channels >= 1 && s.states >= 1 && s.splits >= 1 && s.threads >= 1);
    REQUIRE(s.groups >= 1 && s.channels % s.groups == 0);
    REQUIRE(s.u.data && s.delta.data && s.A && s.B.data && s.C.data);
#pragma omp parallel for num_threads(int(s.threads)) schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t b = item / s.splits, split = item % s.splits;
        const int64_t first = shape.blocks * split / s.splits, last = shape.blocks * (split + 1) / s.splits;
        const int64_t panels = (last - first + size - 1) / size;
        for (int64_t d = 0; d < s.directions; ++d) {
            const Scan one = direction(s, shape, d);
            const auto bound = [&](int64_t i) { return first + (last - first) * i / panels; };
            for (int64_t i = 0; i < panels; ++i) run(one, shape, Panel{d, b, split, i, bound(i), bound(i + 1)});
        }
    }
}

}  // namespace
