// Depthwise causal convolution with bias and SiLU, channel-last: forward and backward pass.
// y_j = bias + sum_s weight[width - 1 - s] x_{j - s}, where step j is position j, or length - 1 - j in reverse.

#include "conv.h"

#include "buffer.h"
#include "debug.h"
#include "vec.h"

namespace {

constexpr int ROWS = 32;       // steps of one block of channels that the backward pass holds
constexpr int MAX_WIDTH = 16;  // ops/cpu/backend.py leaves wider kernels to PyTorch

// One direction, its taps as (tap, channel), and the sums of gradients over one range of time: of the taps, then of the
// bias.
struct Pass : Conv {
    const float* taps;
    float* part;
};

template <class T> T* at(const Pass& c, const Sequence& x, int64_t b, int64_t j, int64_t i) {
    return static_cast<T*>(x.data) + b * x.batch + (c.reverse ? c.length - 1 - j : j) * x.row + i;
}

// Prefetch a row of the next block. Rows lie too far apart for the hardware prefetcher.
template <class T> inline void expect(const Pass& c, const Sequence& x, int64_t b, int64_t j, int64_t i) {
    if (j + ROWS < c.length) __builtin_prefetch(at<T>(c, x, b, j + ROWS, i), 0, 2);
}

// The convolution at step j before the activation. TAPS is the width where it is known to the compiler, else 0.
template <class T, int TAPS> vf response(const Pass& c, int64_t b, int64_t j, int64_t i, int lanes) {
    vf y = c.bias ? load(c.bias + i, lanes) : vf{};
    const int64_t width = TAPS ? TAPS : c.width, taps = j + 1 < width ? j + 1 : width;
    const float* last = c.taps + (width - 1) * c.channels + i;
    const auto tap = [&](int64_t s) {
        return load(last - s * c.channels, lanes) * load(at<T>(c, c.x, b, j - s, i), lanes);
    };
    if (TAPS && taps == TAPS) {
        for (int s = 0; s < TAPS; ++s) y += tap(s);
    } else {
        for (int64_t s = 0; s < taps; ++s) y += tap(s);
    }
    return y;
}

inline vf activate(const Pass& c, vf y) { return c.silu ? y * logistic(y).sigmoid : y; }

// Steps begin .. end of one register of channels, the last inputs kept in registers.
template <class T, int TAPS>
void forward_block(const Pass& c, int64_t b, int64_t begin, int64_t end, int64_t i, int lanes) {
    for (; begin < end && begin + 1 < TAPS; ++begin)
        store(at<T>(c, c.out, b, begin, i), activate(c, response<T, TAPS>(c, b, begin, i, lanes)), lanes);
    vf weight[TAPS], recent[TAPS];
    for (int s = 0; s < TAPS; ++s) weight[s] = load(c.taps + (TAPS - 1 - s) * c.channels + i, lanes);
    const vf bias = c.bias ? load(c.bias + i, lanes) : vf{};
    if (begin == end) return;
    for (int s = 1; s < TAPS; ++s) recent[s - 1] = load(at<T>(c, c.x, b, begin - s, i), lanes);
    for (int64_t j = begin; j < end; ++j) {
        expect<T>(c, c.x, b, j, i);
        for (int s = TAPS - 1; s > 0; --s) recent[s] = recent[s - 1];
        recent[0] = load(at<T>(c, c.x, b, j, i), lanes);
        vf y = bias;
        for (int s = 0; s < TAPS; ++s) y += weight[s] * recent[s];
        store(at<T>(c, c.out, b, j, i), activate(c, y), lanes);
    }
}

template <class T, int TAPS> void forward_range(const Pass& c, int64_t b, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += ROWS)
        for (int64_t i = 0; i < c.channels; i += WIDTH) {
            const int lanes = c.channels - i < WIDTH ? int(c.channels - i) : WIDTH;
            const int64_t last = j + ROWS < end ? j + ROWS : end;
            if (TAPS) {
                forward_block<T, TAPS ? TAPS : 1>(c, b, j, last, i, lanes);
                continue;
            }
            for (int64_t k = j; k < last; ++k)
                store(at<T>(c, c.out, b, k, i), activate(c, response<T, TAPS>(c, b, k, i, lanes)), lanes);
        }
}

template <class T, int TAPS>
void backward_block(const Pass& c, int64_t b, int64_t begin, int64_t end, int64_t i, int lanes) {
    vf dy[ROWS + MAX_WIDTH], taps[MAX_WIDTH], dtaps[MAX_WIDTH] = {}, total{};
    const int width = TAPS ? TAPS : int(c.width);
    const int own = int(end - begin), reach = own + width - 1;
    const int left = int(c.length - begin < reach ? c.length - begin : reach);
    for (int s = 0; s < width; ++s) taps[s] = load(c.taps + (width - 1 - s) * c.channels + i, lanes);
    for (int r = 0; r < left; ++r) {  // width - 1 rows more than the block has: their dy contributes to its dx
        expect<T>(c, c.dout, b, begin + r, i);
        expect<T>(c, c.x, b, begin + r, i);
        expect<T>(c, c.dx, b, begin + r, i);
        dy[r] = load(at<T>(c, c.dout, b, begin + r, i), lanes);
        if (!c.silu) continue;
        const vf y = response<T, TAPS>(c, b, begin + r, i, lanes), gate = logistic(y).sigmoid;
        dy[r] *= gate * (1.0f + y * (1.0f - gate));
    }
    for (int r = left; r < reach; ++r) dy[r] = vf{};
    for (int r = 0; r < own; ++r) {
        vf dx{};
        for (int s = 0; s < width; ++s) dx += taps[s] * dy[r + s];
        T* place = at<T>(c, c.dx, b, begin + r, i);
        store(place, c.accumulate ? load(place, lanes) + dx : dx, lanes);
        total += dy[r];
        const vf x = load(at<T>(c, c.x, b, begin + r, i), lanes);
        for (int s = 0; s < width; ++s) dtaps[s] += x * dy[r + s];
    }
    for (int s = 0; s < width; ++s) {
        float* place = c.part + (width - 1 - s) * c.channels + i;
        store(place, load(place, lanes) + dtaps[s], lanes);
    }
    float* place = c.part + width * c.channels + i;
    store(place, load(place, lanes) + total, lanes);
}

template <class T, int TAPS> void backward_range(const Pass& c, int64_t b, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += ROWS)
        for (int64_t i = 0; i < c.channels; i += WIDTH) {
            const int lanes = c.channels - i < WIDTH ? int(c.channels - i) : WIDTH;
            backward_block<T, TAPS>(c, b, j, j + ROWS < end ? j + ROWS : end, i, lanes);
        }
}

// Transpose a matrix.
void transpose(const float* from, float* to, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * columns + j];
}

// Every range of positions, in all directions one after the other. They share x and, with `accumulate`, dx. `parts`
// (direction, batch, split, width + 1, channel) gets the sums over each range of time, the bias's sum last.
template <class Range> void for_each_range(const Conv& c, Range range, float* parts) {
    const int64_t items = c.batch * c.splits, size = c.width * c.channels;
    REQUIRE(c.directions == 1 || c.directions == 2);
    REQUIRE(c.batch >= 1 && c.length >= 1 && c.channels >= 1 && c.splits >= 1 && c.threads >= 1);
    REQUIRE(c.width >= 1 && c.width <= MAX_WIDTH);
    REQUIRE(c.x.data && c.weight && (c.out.data || (c.dout.data && c.dx.data && c.dweight && c.dbias)));
    Buffer<float> taps(c.directions * size);
    for (int64_t d = 0; d < c.directions; ++d)
        transpose(c.weight + d * size, taps.data + d * size, c.channels, c.width);
#pragma omp parallel for num_threads(int(c.threads)) schedule(dynamic, 1)
    for (int64_t item = 0; item < items; ++item) {
        const int64_t b = item / c.splits, split = item % c.splits;
        const int64_t first = c.length * split / c.splits, last = c.length * (split + 1) / c.splits;
        for (int64_t d = 0; d < c.directions; ++d) {
            Pass one{c, taps.data + d * size, nullptr};
            for (Sequence* x : {&one.x, &one.out, &one.dout, &one.dx}) start_at(*x, d, c.bfloat16_io ? 2 : 4);
            start_at(one.bias, d * c.channels);
            one.reverse = (c.reverse + d) % 2;
            one.accumulate |= d > 0;
            if (parts) {
                one.part = parts + (d * items + item) * (size + c.channels);
                std::memset(one.part, 0, (size + c.channels) * sizeof(float));
            }
            if (one.reverse)
                range(one, b, c.length - last, c.length - first);
            else
                range(one, b, first, last);
        }
    }
}

}  // namespace

extern "C" {

int64_t conv_struct_size() { return sizeof(Conv); }
int64_t conv_max_width() { return MAX_WIDTH; }

void conv_forward(const Conv* c) {
    if (c->bfloat16_io)
        for_each_range(*c, c->width == 4 ? forward_range<bfloat16, 4> : forward_range<bfloat16, 0>, nullptr);
    else
        for_each_range(*c, c->width == 4 ? forward_range<float, 4> : forward_range<float, 0>, nullptr);
}

void conv_backward(const Conv* c) {
    const int64_t items = c->batch * c->splits, size = (c->width + 1) * c->channels;
    Buffer<float> parts(c->directions * items * size);
    if (c->bfloat16_io)
        for_each_range(*c, c->width == 4 ? backward_range<bfloat16, 4> : backward_range<bfloat16, 0>, parts.data);
    else
        for_each_range(*c, c->width == 4 ? backward_range<float, 4> : backward_range<float, 0>, parts.data);
    for (int64_t d = 0; d < c->directions; ++d) {
        float* total = parts.data + d * items * size;
        for (int64_t item = 1; item < items; ++item)
            for (int64_t i = 0; i < size; ++i) total[i] += total[item * size + i];
        transpose(total, c->dweight + d * c->width * c->channels, c->width, c->channels);
        std::memcpy(c->dbias + d * c->channels, total + c->width * c->channels, c->channels * sizeof(float));
    }
}
}
