// Selective scan for CPUs: forward and backward pass, both directions. ops/reference.py is the specification.
//
// A thread owns one batch item and a range of channel blocks, cut into panels that fit the cache. It walks over chunks of
// CHUNK steps. Inside a chunk a first pass reads the rows of the panel in memory order and prepares the step sizes, the
// recurrence runs block by block in the cache with several states at a time in registers ("tile"), and a last pass writes
// rows again. The backward pass restarts every chunk from its stored state. Sums over channels (dB, dC) are kept lane by
// lane over the blocks of a panel and reduced once per chunk, so that a result depends on nothing but `splits`.

#include "scan.h"

#include <cstdlib>
#include <new>

#include "vec.h"

#define UNROLL _Pragma("GCC unroll 16")

namespace {

constexpr int64_t PANEL = 24;  // blocks; 24 * sizeof(Work) stays below 200 KB

struct Block {
    int64_t index, group, channel;  // channel: the first one
    int lanes;
};

struct Shape {
    int64_t width, per_group, blocks, chunks;  // width: channels of a group

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

// Columns of B or C for a chunk's steps: column(j)[n].
struct Columns {
    const float* data;
    int64_t stride;

    Columns(const Matrix& m, int64_t b, int64_t g, const Steps& steps)
        : data(m.data + b * m.batch + g * m.group + steps.first * m.row), stride(m.row * steps.sign) {}
    const float* operator()(int j) const { return data + j * stride; }
};

float* checkpoint(const Scan& s, const Shape& shape, int64_t chunk, int64_t b, int64_t k) {
    return s.checkpoints + (((chunk - 1) * s.batch + b) * shape.blocks + k) * s.states * WIDTH;
}

inline vf per_channel(const float* values, const Block& k) { return values ? load(values + k.channel, k.lanes) : vf{}; }

// Ask for what the next chunk reads while this one computes: its rows lie on other pages, out of a prefetcher's sight.
template <class T> inline void expect(const Sequence& x, const Scan& s, const Block& k, int64_t b, int64_t t, int64_t ahead) {
    const int64_t next = t + (s.reverse ? -ahead : ahead);
    if (x.data && next >= 0 && next < s.length) __builtin_prefetch(at<T>(x, b, next, k.channel), 0, 2);
}

// The parts of one block's chunk that do not depend on the state, and the sums that its states contribute to.
struct Forward {
    vf dt[CHUNK], dtu[CHUNK], y[CHUNK];
};

struct Backward : Forward {
    vf dy[CHUNK], slope[CHUNK], gate[CHUNK];  // slope: derivative of softplus
    vf d_dtu[CHUNK], d_exponent[CHUNK];       // d_exponent: sum over n of log2(e) A g_t decay_t h_{t-1}
};

template <class T> inline vf raw_step(const Scan& s, const Block& k, int64_t b, int64_t t) {
    return load(at<T>(s.delta, b, t, k.channel), k.lanes) + per_channel(s.bias, k);
}

template <class T> void prepare(const Scan& s, const Block& k, int64_t b, int64_t t, int j, Forward& w) {
    const Sequence* read[] = {&s.u, &s.delta, &s.z};
    for (const Sequence* x : read) expect<T>(*x, s, k, b, t, CHUNK);
    const vf u = load(at<T>(s.u, b, t, k.channel), k.lanes), raw = raw_step<T>(s, k, b, t);
    w.dt[j] = s.softplus ? softplus(raw, exp2(abs(raw) * -LOG2_E)) : raw;
    w.dtu[j] = w.dt[j] * u;
    w.y[j] = per_channel(s.D, k) * u;
}

template <class T> void prepare(const Scan& s, const Block& k, int64_t b, int64_t t, int j, Backward& w) {
    const Sequence* read[] = {&s.u, &s.delta, &s.z, &s.dout};
    for (const Sequence* x : read) expect<T>(*x, s, k, b, t, -CHUNK);
    const vf u = load(at<T>(s.u, b, t, k.channel), k.lanes), raw = raw_step<T>(s, k, b, t);
    w.dt[j] = raw;
    w.slope[j] = splat(1);
    if (s.softplus) {
        const Logistic l = logistic(raw);
        w.dt[j] = softplus(raw, l.small);
        w.slope[j] = l.sigmoid;
    }
    w.dtu[j] = w.dt[j] * u;
    w.y[j] = per_channel(s.D, k) * u;
    w.dy[j] = load(at<T>(s.dout, b, t, k.channel), k.lanes);
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes);
        w.gate[j] = logistic(z).sigmoid;
        w.dy[j] = w.dy[j] * z * w.gate[j];
    }
    w.d_dtu[j] = w.d_exponent[j] = vf{};
}

template <class T> void finish(const Scan& s, const Block& k, int64_t b, int64_t t, int j, const Forward& w) {
    vf y = w.y[j];
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes);
        y = y * z * logistic(z).sigmoid;
    }
    store(at<T>(s.out, b, t, k.channel), y, k.lanes);
}

template <class T> void finish(const Scan& s, const Block& k, int64_t b, int64_t t, int j, const Backward& w, float* sums) {
    const vf u = load(at<T>(s.u, b, t, k.channel), k.lanes);
    const vf ddelta = (w.d_dtu[j] * u + w.d_exponent[j] * LN_2) * w.slope[j];
    store(at<T>(s.ddelta, b, t, k.channel), ddelta, k.lanes);
    store(at<T>(s.du, b, t, k.channel), w.d_dtu[j] * w.dt[j] + per_channel(s.D, k) * w.dy[j], k.lanes);
    store(sums, load(sums) + w.dy[j] * u);
    store(sums + WIDTH, load(sums + WIDTH) + ddelta);
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes), gate = w.gate[j];
        const vf dout = load(at<T>(s.dout, b, t, k.channel), k.lanes);
        store(at<T>(s.dz, b, t, k.channel), dout * w.y[j] * gate * (1.0f + z * (1.0f - gate)), k.lanes);
    }
}

template <int TILE>
void forward_tile(const float* A, int count, Forward& w, const Columns& B, const Columns& C, int64_t n, float* state,
                  float* keep) {
    vf h[TILE], decay[TILE];
    UNROLL for (int i = 0; i < TILE; ++i) {
        h[i] = load(state + i * WIDTH);
        decay[i] = load(A + i * WIDTH);
    }
    for (int j = 0; j < count; ++j) {
        const float *b = B(j) + n, *c = C(j) + n;
        const vf d = w.dt[j], x = w.dtu[j];
        vf even = w.y[j], odd{};
        UNROLL for (int i = 0; i < TILE; ++i) {
            h[i] = exp2(d * decay[i]) * h[i] + x * b[i];
            (i % 2 ? odd : even) += h[i] * c[i];
        }
        w.y[j] = even + odd;
    }
    UNROLL for (int i = 0; i < TILE; ++i) {
        store(state + i * WIDTH, h[i]);
        if (keep) store(keep + i * WIDTH, h[i]);
    }
}

template <int TILE>
void backward_tile(const float* A, int count, Backward& w, const Columns& B, const Columns& C, int64_t n,
                   const float* start, float* carry, float* dA, vf (*dB)[TILE], vf (*dC)[TILE]) {
    vf h[CHUNK + 1][TILE], decay[CHUNK][TILE], rate[TILE], g[TILE], sum[TILE];
    UNROLL for (int i = 0; i < TILE; ++i) {
        h[0][i] = start ? load(start + i * WIDTH) : vf{};
        rate[i] = load(A + i * WIDTH);
        g[i] = load(carry + i * WIDTH);
        sum[i] = load(dA + i * WIDTH);
    }
    for (int j = 0; j < count; ++j) {
        const float *b = B(j) + n, *c = C(j) + n;
        const vf d = w.dt[j], x = w.dtu[j];
        vf y = w.y[j];
        UNROLL for (int i = 0; i < TILE; ++i) {
            decay[j][i] = exp2(d * rate[i]);
            h[j + 1][i] = decay[j][i] * h[j][i] + x * b[i];
            y += h[j + 1][i] * c[i];
        }
        w.y[j] = y;
    }
    for (int j = count - 1; j >= 0; --j) {
        const float *b = B(j) + n, *c = C(j) + n;
        const vf d = w.dt[j], x = w.dtu[j], dy = w.dy[j];
        vf d_dtu = w.d_dtu[j], d_exponent = w.d_exponent[j];
        UNROLL for (int i = 0; i < TILE; ++i) {
            dC[j][i] += dy * h[j + 1][i];
            const vf adjoint = g[i] + dy * c[i];
            dB[j][i] += adjoint * x;
            d_dtu += adjoint * b[i];
            g[i] = decay[j][i] * adjoint;
            const vf d_log = g[i] * h[j][i];
            d_exponent += rate[i] * d_log;
            sum[i] += d * d_log;
        }
        w.d_dtu[j] = d_dtu;
        w.d_exponent[j] = d_exponent;
    }
    UNROLL for (int i = 0; i < TILE; ++i) {
        store(carry + i * WIDTH, g[i]);
        store(dA + i * WIDTH, sum[i]);
    }
}

template <class V> struct Buffer {  // aligned and uninitialised, which std::vector cannot be
    V* data;
    explicit Buffer(int64_t count) : data(nullptr) {
        void* p = nullptr;
        if (posix_memalign(&p, 64, count * sizeof(V) + 64) != 0) throw std::bad_alloc();
        data = static_cast<V*>(p);
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { std::free(data); }
    void clear(int64_t count) { std::memset(data, 0, count * sizeof(V)); }
};

struct Panel {
    int64_t batch, begin, end, split;
};

// A panel's blocks, and their states or rates A as (block, state, lane) from and to (channel, state).
struct Blocks {
    Block at[PANEL];
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

template <class T> void forward_panel(const Scan& s, const Shape& shape, const Panel& p) {
    const Blocks blocks(s, shape, p);
    const int64_t size = s.states * WIDTH;
    Buffer<Forward> work(blocks.count);
    Buffer<float> rates(blocks.count * size), state(blocks.count * size);
    blocks.gather(s.A, LOG2_E, rates.data);
    state.clear(blocks.count * size);
    for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
        const Steps steps(s, chunk);
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                prepare<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
        const bool is_kept = s.checkpoints && chunk + 1 < shape.chunks;
        for (int64_t k = 0; k < blocks.count; ++k) {
            const int64_t group = blocks.at[k].group;
            const Columns B(s.B, p.batch, group, steps), C(s.C, p.batch, group, steps);
            float* keep = is_kept ? checkpoint(s, shape, chunk + 1, p.batch, p.begin + k) : nullptr;
            int64_t n = 0;
            const auto tile = [&](auto run, int states) {
                const int64_t offset = n * WIDTH, place = k * size + offset;
                run(rates.data + place, steps.count, work.data[k], B, C, n, state.data + place, keep ? keep + offset : keep);
                n += states;
            };
            while (n + 8 <= s.states) tile(forward_tile<8>, 8);
            while (n + 4 <= s.states) tile(forward_tile<4>, 4);
            while (n < s.states) tile(forward_tile<1>, 1);
        }
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                finish<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
    }
    blocks.scatter(state.data, s.last + p.batch * s.channels * s.states);
}

// The buffers of one panel's backward pass: (block, state, lane) each, sums with dD and dbias per block.
struct Gradients {
    const float* rates;
    float *carries, *dA, *sums;
};

// States n .. n + TILE of one chunk for the panel's blocks first .. end of one group, and their share of dB and dC.
template <int TILE>
void backward_states(const Scan& s, const Shape& shape, const Panel& p, int64_t chunk, int64_t n, int64_t first,
                     int64_t end, int64_t group, Backward* work, const Gradients& to) {
    const Steps steps(s, chunk);
    const Columns B(s.B, p.batch, group, steps), C(s.C, p.batch, group, steps);
    vf dB[CHUNK][TILE] = {}, dC[CHUNK][TILE] = {};
    for (int64_t k = first; k < end; ++k) {
        const int64_t place = (k * s.states + n) * WIDTH;
        const float* start = chunk ? checkpoint(s, shape, chunk, p.batch, p.begin + k) + n * WIDTH : nullptr;
        if (chunk > 1)
            for (int i = 0; i < TILE; ++i)
                __builtin_prefetch(checkpoint(s, shape, chunk - 1, p.batch, p.begin + k) + (n + i) * WIDTH, 0, 2);
        backward_tile<TILE>(to.rates + place, steps.count, work[k], B, C, n, start, to.carries + place, to.dA + place, dB, dC);
    }
    const int64_t part = ((p.split * s.batch + p.batch) * s.groups + group) * s.length * s.states;
    for (int j = 0; j < steps.count; ++j) {
        const int64_t place = part + steps.position(j) * s.states + n;
        for (int i = 0; i < TILE; ++i) {
            s.dB[place + i] += sum(dB[j][i]);
            s.dC[place + i] += sum(dC[j][i]);
        }
    }
}

template <class T> void backward_panel(const Scan& s, const Shape& shape, const Panel& p) {
    const Blocks blocks(s, shape, p);
    const int64_t size = blocks.count * s.states * WIDTH;
    Buffer<Backward> work(blocks.count);
    Buffer<float> rates(size), carries(size), dA(size), sums(blocks.count * 2 * WIDTH);
    blocks.gather(s.A, LOG2_E, rates.data);
    carries.clear(size);
    dA.clear(size);
    sums.clear(blocks.count * 2 * WIDTH);
    const Gradients to{rates.data, carries.data, dA.data, sums.data};
    for (int64_t chunk = shape.chunks - 1; chunk >= 0; --chunk) {
        const Steps steps(s, chunk);
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                prepare<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
        for (int64_t first = 0, end; first < blocks.count; first = end) {
            const int64_t group = blocks.at[first].group;
            for (end = first; end < blocks.count && blocks.at[end].group == group;) ++end;
            int64_t n = 0;
            for (; n + 4 <= s.states; n += 4) backward_states<4>(s, shape, p, chunk, n, first, end, group, work.data, to);
            for (; n < s.states; ++n) backward_states<1>(s, shape, p, chunk, n, first, end, group, work.data, to);
        }
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                finish<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k], sums.data + k * 2 * WIDTH);
    }
    blocks.scatter(dA.data, s.dA + p.batch * s.channels * s.states);
    for (int64_t k = 0; k < blocks.count; ++k) {
        const int64_t place = p.batch * s.channels + blocks.at[k].channel;
        store(s.dD + place, load(sums.data + k * 2 * WIDTH), blocks.at[k].lanes);
        store(s.dbias + place, load(sums.data + k * 2 * WIDTH + WIDTH), blocks.at[k].lanes);
    }
}

template <class Run> void for_each_panel(const Scan& s, Run run) {
    const Shape shape(s);
    const int64_t items = s.batch * s.splits;
#pragma omp parallel for num_threads(int(s.threads)) schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t b = item / s.splits, split = item % s.splits;
        const int64_t first = shape.blocks * split / s.splits, last = shape.blocks * (split + 1) / s.splits;
        const int64_t panels = (last - first + PANEL - 1) / PANEL;
        for (int64_t i = 0; i < panels; ++i)
            run(s, shape, {b, first + (last - first) * i / panels, first + (last - first) * (i + 1) / panels, split});
    }
}

}  // namespace

extern "C" {

int64_t scan_register_width() { return WIDTH; }
int64_t scan_chunk() { return CHUNK; }
int64_t scan_struct_size() { return sizeof(Scan); }

void scan_forward(const Scan* s) {
    s->bfloat16_io ? for_each_panel(*s, forward_panel<bfloat16>) : for_each_panel(*s, forward_panel<float>);
}

void scan_backward(const Scan* s) {
    s->bfloat16_io ? for_each_panel(*s, backward_panel<bfloat16>) : for_each_panel(*s, backward_panel<float>);
}
}
