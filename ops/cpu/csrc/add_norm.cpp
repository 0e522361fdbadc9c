// total = rotate(scale * hidden + residual), normed = weight * total / rms(total), and their gradients, row by row.

#include "add_norm.h"

#include <cmath>

#include "debug.h"
#include "vec.h"

namespace {

// Channel pairs (2i, 2i + 1) rotated by the angles of `unit`, or back.
inline vf turn(vf x, vf unit, float direction) {
    vf cosine, sine, other;
    for (int i = 0; i < WIDTH; ++i) cosine[i] = unit[i & ~1];
    for (int i = 0; i < WIDTH; ++i) sine[i] = unit[i | 1];
    for (int i = 0; i < WIDTH; ++i) other[i] = x[i ^ 1];
    vf sign;
    for (int i = 0; i < WIDTH; ++i) sign[i] = i & 1 ? direction : -direction;
    return x * cosine + other * sine * sign;
}

struct Row {
    int64_t place, rotation;
    float scale;

    Row(const AddNorm& a, int64_t index) : place(index * a.width) {
        const int64_t b = index / a.length, t = index % a.length;
        rotation = (b * a.rotation_batch + t) * a.width;
        scale = a.scale ? a.scale[b] : 1.0f;
    }
};

template <class Work> inline void each_register(const AddNorm& a, Work work) {
    int64_t i = 0;
    for (; i + WIDTH <= a.width; i += WIDTH) work(i, WIDTH);
    if (i < a.width) work(i, int(a.width - i));
}

template <class H, class N> void forward_row(const AddNorm& a, const Row& row) {
    float* total = a.total + row.place;
    const bool is_sum = a.total == a.hidden;  // the sum exists already: only the norm is wanted
    vf squares{};
    each_register(a, [&](int64_t i, int lanes) {
        vf x = load(static_cast<const H*>(a.hidden) + row.place + i, lanes) * row.scale;
        if (a.residual) x += load(a.residual + row.place + i, lanes);
        if (a.rotation) x = turn(x, load(a.rotation + row.rotation + i, lanes), 1);
        squares += x * x;
        if (!is_sum) store(total + i, x, lanes);
    });
    const float inverse = 1 / std::sqrt(sum(squares) / a.width + a.eps);
    each_register(a, [&](int64_t i, int lanes) {
        const vf x = load(total + i, lanes) * inverse * load(a.weight + i, lanes);
        store(static_cast<N*>(a.normed) + row.place + i, x, lanes);
    });
}

// With r = 1 / rms: d total = r g - total r^3 <g, total> / width, where g = weight * d normed.
template <class H, class N> void backward_row(const AddNorm& a, const Row& row, float* dweight) {
    const float* total = a.total + row.place;
    const N* dnormed = static_cast<const N*>(a.normed) + row.place;
    vf squares{}, products{};
    each_register(a, [&](int64_t i, int lanes) {
        const vf x = load(total + i, lanes);
        squares += x * x;
        products += load(dnormed + i, lanes) * load(a.weight + i, lanes) * x;
    });
    const float inverse = 1 / std::sqrt(sum(squares) / a.width + a.eps);
    const float shrink = inverse * inverse * inverse * sum(products) / a.width;
    each_register(a, [&](int64_t i, int lanes) {
        const vf x = load(total + i, lanes), dn = load(dnormed + i, lanes);
        vf d = dn * load(a.weight + i, lanes) * inverse - x * shrink + load(a.dtotal + row.place + i, lanes);
        store(dweight + i, load(dweight + i, lanes) + dn * x * inverse, lanes);
        if (a.rotation) d = turn(d, load(a.rotation + row.rotation + i, lanes), -1);
        store(a.dresidual + row.place + i, d, lanes);
        if (a.hidden) store(static_cast<H*>(a.hidden) + row.place + i, d * row.scale, lanes);
    });
}

// Every thread has a fixed range of rows, so sums over rows do not change between calls.
template <class Work> void for_each_row(const AddNorm& a, Work work) {
    const int64_t rows = a.batch * a.length;
    REQUIRE(a.batch >= 0 && a.length >= 0 && a.width >= 1 && a.threads >= 1);
    REQUIRE(a.rotation_batch == 0 || a.rotation_batch == a.length);
    REQUIRE(rows == 0 || (a.total && a.weight && a.normed));
#pragma omp parallel for num_threads(int(a.threads)) schedule(static, 1)
    for (int64_t part = 0; part < a.threads; ++part)
        for (int64_t index = rows * part / a.threads; index < rows * (part + 1) / a.threads; ++index)
            work(Row(a, index), part);
}

template <class H, class N> void forward(const AddNorm& a) {
    for_each_row(a, [&](const Row& row, int64_t) { forward_row<H, N>(a, row); });
}

template <class H, class N> void backward(const AddNorm& a) {
    for_each_row(a, [&](const Row& row, int64_t part) { backward_row<H, N>(a, row, a.dweight + part * a.width); });
}

}  // namespace

extern "C" {

int64_t add_norm_struct_size() { return sizeof(AddNorm); }

void add_norm_forward(const AddNorm* a) {
    if (a->bfloat16_hidden)
        a->bfloat16_normed ? forward<bfloat16, bfloat16>(*a) : forward<bfloat16, float>(*a);
    else
        a->bfloat16_normed ? forward<float, bfloat16>(*a) : forward<float, float>(*a);
}

void add_norm_backward(const AddNorm* a) {
    if (a->bfloat16_hidden)
        a->bfloat16_normed ? backward<bfloat16, bfloat16>(*a) : backward<bfloat16, float>(*a);
    else
        a->bfloat16_normed ? backward<float, bfloat16>(*a) : backward<float, float>(*a);
}
}
