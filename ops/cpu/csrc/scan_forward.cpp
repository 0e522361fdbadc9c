// Selective scan, forward pass. ops/reference/scan.py is the specification.

#include "scan_panel.h"

namespace {

template <class T> void prepare(const Scan& s, const Block& k, int64_t b, int64_t t, int j, Forward& w) {
    const Sequence* read[] = {&s.u, &s.delta, &s.z};
    for (const Sequence* x : read) expect<T>(*x, s, k, b, t, CHUNK);
    const vf u = load(at<T>(s.u, b, t, k.channel), k.lanes), raw = raw_step<T>(s, k, b, t);
    w.dt[j] = s.softplus ? softplus(raw, exp2(abs(raw) * -LOG2_E)) : raw;
    w.dtu[j] = w.dt[j] * u;
    w.y[j] = per_channel(s.D, k) * u;
}

template <class T> void finish(const Scan& s, const Block& k, int64_t b, int64_t t, int j, const Forward& w) {
    vf y = w.y[j] * s.factor;
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes);
        y = y * z * logistic(z).sigmoid;
    }
    put(s, at<T>(s.out, b, t, k.channel), y, k.lanes);
}

// The states after one chunk, and with OUTPUT their contribution to y.
template <int TILE, bool OUTPUT>
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
            if (OUTPUT) (i % 2 ? odd : even) += h[i] * c[i];
        }
        if (OUTPUT) w.y[j] = even + odd;
    }
    UNROLL for (int i = 0; i < TILE; ++i) {
        store(state + i * WIDTH, h[i]);
        if (keep) store(keep + i * WIDTH, h[i]);
    }
}

template <class T, bool OUTPUT> void forward_panel(const Scan& s, const Shape& shape, const Panel& p) {
    const Blocks blocks(s, shape, p);
    const int64_t size = s.states * WIDTH;
    Buffer<Forward> work(blocks.count);
    Buffer<float> rates(blocks.count * size), state(blocks.count * size);
    Columns B(s.states), C(s.states);
    blocks.gather(s.A, LOG2_E, rates.data);
    state.clear(blocks.count * size);
    for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
        const Steps steps(s, chunk);
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                prepare<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
        const bool is_kept = s.checkpoints && chunk + 1 < shape.chunks;
        for_each_group(blocks, [&](int64_t group, int64_t first, int64_t end) {
            B.read(s, s.B, p.batch, group, steps);
            C.read(s, s.C, p.batch, group, steps);
            for (int64_t k = first; k < end; ++k) {
                float* keep = is_kept ? checkpoint(s, shape, chunk + 1, p.batch, p.begin + k) : nullptr;
                int64_t n = 0;
                const auto tile = [&](auto run, int states) {
                    const int64_t offset = n * WIDTH, place = k * size + offset;
                    run(rates.data + place, steps.count, work.data[k], B, C, n, state.data + place,
                        keep ? keep + offset : nullptr);
                    n += states;
                };
                while (n + 8 <= s.states) tile(forward_tile<8, OUTPUT>, 8);
                while (n + 4 <= s.states) tile(forward_tile<4, OUTPUT>, 4);
                while (n < s.states) tile(forward_tile<1, OUTPUT>, 1);
            }
        });
        for (int j = 0; OUTPUT && j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                finish<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
    }
    if (s.last) blocks.scatter(state.data, s.last + p.batch * s.channels * s.states);
}

}  // namespace

extern "C" {

int64_t scan_register_width() { return WIDTH; }
int64_t scan_chunk() { return CHUNK; }
int64_t scan_struct_size() { return sizeof(Scan); }

void scan_forward(const Scan* s) {
    const auto halves = s->out.data ? forward_panel<bfloat16, true> : forward_panel<bfloat16, false>;
    const auto floats = s->out.data ? forward_panel<float, true> : forward_panel<float, false>;
    for_each_panel(*s, FORWARD_PANEL, s->bfloat16_io ? halves : floats);
}
}
