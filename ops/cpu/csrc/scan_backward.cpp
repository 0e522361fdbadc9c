// Selective scan, backward pass: gradients of every input.
//
// Every chunk restarts from its stored state. With the adjoint state g_t = C_t dy_t + decay_{t+1} g_{t+1}:
// dC_t = dy_t h_t, dB_t = delta_t u_t g_t (both summed over channels), d(delta_t u_t) = <B_t, g_t>, and the exponent
// delta_t A gets g_t decay_t h_{t-1}. Sums over channels are kept per lane over a panel and reduced once per chunk. At
// the end they are summed over the threads' ranges of channels.

#include "scan_panel.h"

namespace {

struct Backward : Forward {
    vf dy[CHUNK], slope[CHUNK], gate[CHUNK];  // slope: derivative of softplus
    vf d_dtu[CHUNK], d_exponent[CHUNK];       // d_exponent: sum over n of log2(e) A g_t decay_t h_{t-1}
};

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
    w.dy[j] = load(at<T>(s.dout, b, t, k.channel), k.lanes) * s.factor;
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes);
        w.gate[j] = logistic(z).sigmoid;
        w.dy[j] = w.dy[j] * z * w.gate[j];
    }
}

template <class T>
void finish(const Scan& s, const Block& k, int64_t b, int64_t t, int j, const Backward& w, float* sums) {
    const vf u = load(at<T>(s.u, b, t, k.channel), k.lanes);
    const vf ddelta = (w.d_dtu[j] * u + w.d_exponent[j] * LN_2) * w.slope[j];
    store(at<T>(s.ddelta, b, t, k.channel), ddelta, k.lanes);
    store(at<T>(s.du, b, t, k.channel), w.d_dtu[j] * w.dt[j] + per_channel(s.D, k) * w.dy[j], k.lanes);
    store(sums, load(sums) + w.dy[j] * u);
    store(sums + WIDTH, load(sums + WIDTH) + ddelta);
    const vf y = (w.y[j] + per_channel(s.D, k) * u) * s.factor;
    if (s.z.data) {
        const vf z = load(at<T>(s.z, b, t, k.channel), k.lanes), gate = w.gate[j];
        const vf dout = load(at<T>(s.dout, b, t, k.channel), k.lanes);
        put(s, at<T>(s.dz, b, t, k.channel), dout * y * gate * (1.0f + z * (1.0f - gate)), k.lanes);
        if (s.out.data) put(s, at<T>(s.out, b, t, k.channel), y * z * gate, k.lanes);
    } else if (s.out.data) {
        put(s, at<T>(s.out, b, t, k.channel), y, k.lanes);
    }
}

// One step of a few states: the state before it, its decay, and dB and dC of all blocks so far. They lie side by side,
// because of 4 KiB aliasing: a processor delays a load that follows a store to another array a multiple of 4 KiB away.
template <int TILE> struct Step {
    vf before[TILE], decay[TILE], dB[TILE], dC[TILE];
};

// States n .. n + TILE of one block. The first tile starts the block's sums over states, the others add to them.
template <int TILE>
void backward_tile(const float* A, int count, Backward& w, const Columns& B, const Columns& C, int64_t n,
                   const float* start, float* carry, float* dA, Step<TILE>* steps) {
    vf rate[TILE], g[TILE], sum[TILE];
    UNROLL for (int i = 0; i < TILE; ++i) {
        steps[0].before[i] = start ? load(start + i * WIDTH) : vf{};
        rate[i] = load(A + i * WIDTH);
        g[i] = load(carry + i * WIDTH);
        sum[i] = load(dA + i * WIDTH);
    }
    for (int j = 0; j < count; ++j) {
        const float *b = B(j) + n, *c = C(j) + n;
        const vf d = w.dt[j], x = w.dtu[j];
        vf y = n ? w.y[j] : vf{};
        UNROLL for (int i = 0; i < TILE; ++i) {
            const vf decay = exp2(d * rate[i]), h = decay * steps[j].before[i] + x * b[i];
            steps[j].decay[i] = decay;
            steps[j + 1].before[i] = h;
            y += h * c[i];
        }
        w.y[j] = y;
    }
    for (int j = count - 1; j >= 0; --j) {
        const float *b = B(j) + n, *c = C(j) + n;
        const vf d = w.dt[j], x = w.dtu[j], dy = w.dy[j];
        vf d_dtu = n ? w.d_dtu[j] : vf{}, d_exponent = n ? w.d_exponent[j] : vf{};
        UNROLL for (int i = 0; i < TILE; ++i) {
            steps[j].dC[i] += dy * steps[j + 1].before[i];
            const vf adjoint = g[i] + dy * c[i];
            steps[j].dB[i] += adjoint * x;
            d_dtu += adjoint * b[i];
            g[i] = steps[j].decay[i] * adjoint;
            const vf d_log = g[i] * steps[j].before[i];
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

// Shared by one panel's chunks: rates, carries and dA are (block, state, lane); B and C are those of the current group.
struct Running {
    const float* rates;
    float *carries, *dA;
    Columns B, C;
};

// One thread's sums of dB and dC over its channels: elements (t, 0, n) and (t, 1, n) of one group.
struct Share {
    int64_t group;
    float* data;

    Share(float* shares, const Scan& s, int64_t d, int64_t b, int64_t split)
        : group(s.length * 2 * s.states), data(shares + ((d * s.batch + b) * s.splits + split) * s.groups * group) {}
    void clear(const Scan& s) const { std::memset(data, 0, s.groups * group * sizeof(float)); }
    float* row(const Scan& s, int64_t g, int64_t t) const { return data + g * group + t * 2 * s.states; }
};

// States n .. n + TILE of one chunk for the panel's blocks first .. end of one group, and their part of dB and dC.
template <int TILE>
void backward_states(const Scan& s, const Shape& shape, const Panel& p, int64_t chunk, int64_t n, int64_t first,
                     int64_t end, int64_t group, Backward* work, const Running& to, const Share& share) {
    const Steps steps(s, chunk);
    Step<TILE> kept[CHUNK + 1] = {};
    for (int64_t k = first; k < end; ++k) {
        const int64_t place = (k * s.states + n) * WIDTH;
        const float* start = chunk ? checkpoint(s, shape, chunk, p.batch, p.begin + k) + n * WIDTH : nullptr;
        if (chunk > 1)
            for (int i = 0; i < TILE; ++i)
                __builtin_prefetch(checkpoint(s, shape, chunk - 1, p.batch, p.begin + k) + (n + i) * WIDTH, 0, 2);
        if (chunk && k + 1 < end)
            for (int i = 0; i < TILE; ++i)
                __builtin_prefetch(checkpoint(s, shape, chunk, p.batch, p.begin + k + 1) + (n + i) * WIDTH);
        backward_tile<TILE>(to.rates + place, steps.count, work[k], to.B, to.C, n, start, to.carries + place,
                            to.dA + place, kept);
    }
    for (int j = 0; j < steps.count; ++j) {
        float* dB = share.row(s, group, steps.position(j)) + n;
        for (int i = 0; i < TILE; ++i) {
            dB[i] += sum(kept[j].dB[i]);
            dB[s.states + i] += sum(kept[j].dC[i]);
        }
    }
}

template <class T> void backward_panel(const Scan& s, const Shape& shape, const Panel& p, float* shares) {
    const Blocks blocks(s, shape, p);
    const int64_t size = blocks.count * s.states * WIDTH;
    Buffer<Backward> work(blocks.count);
    Buffer<float> rates(size), carries(size), dA(size), sums(blocks.count * 2 * WIDTH);
    blocks.gather(s.A, LOG2_E, rates.data);
    carries.clear(size);
    dA.clear(size);
    sums.clear(blocks.count * 2 * WIDTH);
    Running to{rates.data, carries.data, dA.data, Columns(s.states), Columns(s.states)};
    const Share share(shares, s, p.direction, p.batch, p.split);
    if (p.index == 0) share.clear(s);
    for (int64_t chunk = shape.chunks - 1; chunk >= 0; --chunk) {
        const Steps steps(s, chunk);
        for (int j = 0; j < steps.count; ++j)
            for (int64_t k = 0; k < blocks.count; ++k)
                prepare<T>(s, blocks.at[k], p.batch, steps.position(j), j, work.data[k]);
        for_each_group(blocks, [&](int64_t group, int64_t first, int64_t end) {
            to.B.read(s, s.B, p.batch, group, steps);
            to.C.read(s, s.C, p.batch, group, steps);
            int64_t n = 0;
            const auto tile = [&](auto run, int states) {
                run(s, shape, p, chunk, n, first, end, group, work.data, to, share);
                n += states;
            };
            while (n + 4 <= s.states) tile(backward_states<4>, 4);
            while (n < s.states) tile(backward_states<1>, 1);
        });
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

// dB and dC: the sums over all threads.
template <class T> void add_shares(const Scan& s, float* shares) {
    const int64_t rows = s.directions * s.batch * s.groups * s.length;
#pragma omp parallel for num_threads(int(s.threads)) schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
        const int64_t t = row % s.length, rest = row / s.length, g = rest % s.groups;
        const int64_t b = rest / s.groups % s.batch, d = rest / s.groups / s.batch;
        T* to[] = {at<T>(s.dB, b, g, t) + d * s.dB.direction, at<T>(s.dC, b, g, t) + d * s.dC.direction};
        for (int which = 0; which < 2; ++which)
            for (int64_t n = 0; n < s.states; n += WIDTH) {
                const int lanes = s.states - n < WIDTH ? int(s.states - n) : WIDTH;
                vf total{};
                for (int64_t split = 0; split < s.splits; ++split)
                    total += load(Share(shares, s, d, b, split).row(s, g, t) + which * s.states + n, lanes);
                store(to[which] + n, total, lanes);
            }
    }
}

}  // namespace

extern "C" void scan_backward(const Scan* s) {
    Buffer<float> shares(s->directions * s->batch * s->splits * s->groups * s->length * 2 * s->states);
    const auto panel = s->bfloat16_io ? backward_panel<bfloat16> : backward_panel<float>;
    for_each_panel(*s, BACKWARD_PANEL,
                   [&](const Scan& one, const Shape& shape, const Panel& p) { panel(one, shape, p, shares.data); });
    (s->bfloat16_states ? add_shares<bfloat16> : add_shares<float>)(*s, shares.data);
}
