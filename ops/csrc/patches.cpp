// Patches of a volume as rows, and the squared error of predictions of them, without a copy of the volume between.

#include "patches.h"

#include <cmath>
#include <vector>

#include "vec.h"

namespace {

struct Patch {
    const float* corner;
    int64_t row;

    Patch(const Patches& a, int64_t index) : row(index * a.contrasts * a.patch * a.patch * a.patch) {
        const int64_t id = a.ids[index], x = id % a.grid_x, y = id / a.grid_x % a.grid_y, z = id / a.grid_x / a.grid_y;
        corner = a.volume + index / a.kept * a.batch_stride +
                 a.patch * (z * a.plane_stride + y * a.line_stride + x);
    }
    const float* line(const Patches& a, int64_t c, int64_t z, int64_t y) const {
        return corner + c * a.contrast_stride + z * a.plane_stride + y * a.line_stride;
    }
};

template <class Work> inline void each_line(const Patches& a, Work work) {
    for (int64_t z = 0; z < a.patch; ++z)
        for (int64_t y = 0; y < a.patch; ++y) work(z, y, (z * a.patch + y) * a.patch * a.contrasts);
}

// One line of voxels, contrasts interleaved.
inline void interleave(const Patches& a, const Patch& p, int64_t z, int64_t y, float* line) {
    if (a.contrasts == 4) {
        const float *s0 = p.line(a, 0, z, y), *s1 = p.line(a, 1, z, y);
        const float *s2 = p.line(a, 2, z, y), *s3 = p.line(a, 3, z, y);
        for (int64_t x = 0; x < a.patch; ++x) {
            line[4 * x] = s0[x];
            line[4 * x + 1] = s1[x];
            line[4 * x + 2] = s2[x];
            line[4 * x + 3] = s3[x];
        }
        return;
    }
    for (int64_t c = 0; c < a.contrasts; ++c) {
        const float* from = p.line(a, c, z, y);
        for (int64_t x = 0; x < a.patch; ++x) line[x * a.contrasts + c] = from[x];
    }
}

template <class Work> inline void each_register(int64_t count, Work work) {
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) work(i, WIDTH);
    if (i < count) work(i, int(count - i));
}

struct Moments {
    float mean = 0, inverse = 1;
};

// Of all values of a patch: unbiased variance + 1e-6 under the root (METHOD.md section 4).
Moments moments(const Patches& a, const Patch& p, std::vector<float>& line) {
    const double count = double(a.contrasts) * a.patch * a.patch * a.patch;
    const auto total = [&](float centre, bool squared) {
        double sums = 0;
        each_line(a, [&](int64_t z, int64_t y, int64_t) {
            interleave(a, p, z, y, line.data());
            vf here{};
            each_register(a.patch * a.contrasts, [&](int64_t i, int lanes) {
                const vf x = load(line.data() + i, lanes) - centre;
                vf add = squared ? x * x : x;
                for (int l = lanes; l < WIDTH; ++l) add[l] = 0;
                here += add;
            });
            sums += sum(here);
        });
        return sums;
    };
    const float mean = float(total(0, false) / count);
    return {mean, float(1 / std::sqrt(total(mean, true) / (count - 1) + 1e-6))};
}

template <class T> void gather(const Patches& a, int64_t index, std::vector<float>& line) {
    const Patch p(a, index);
    T* row = static_cast<T*>(a.rows) + p.row;
    if (a.contrasts_first) {
        for (int64_t c = 0; c < a.contrasts; ++c)
            for (int64_t z = 0; z < a.patch; ++z)
                for (int64_t y = 0; y < a.patch; ++y, row += a.patch) {
                    const float* from = p.line(a, c, z, y);
                    each_register(a.patch, [&](int64_t i, int lanes) { store(row + i, load(from + i, lanes), lanes); });
                }
        return;
    }
    each_line(a, [&](int64_t z, int64_t y, int64_t place) {
        interleave(a, p, z, y, line.data());
        each_register(a.patch * a.contrasts,
                      [&](int64_t i, int lanes) { store(row + place + i, load(line.data() + i, lanes), lanes); });
    });
}

template <class T> void compare(const Patches& a, int64_t index, std::vector<float>& line) {
    const Patch p(a, index);
    const T* pred = static_cast<const T*>(a.pred) + p.row;
    T* row = static_cast<T*>(a.rows) + p.row;
    const Moments m = a.normalise ? moments(a, p, line) : Moments{};
    double squares = 0;
    each_line(a, [&](int64_t z, int64_t y, int64_t place) {
        interleave(a, p, z, y, line.data());
        vf here{};
        each_register(a.patch * a.contrasts, [&](int64_t i, int lanes) {
            const vf target = (load(line.data() + i, lanes) - m.mean) * m.inverse;
            vf error = load(pred + place + i, lanes) - target;
            store(row + place + i, error, lanes);
            for (int l = lanes; l < WIDTH; ++l) error[l] = 0;
            here += error * error;
        });
        squares += sum(here);
    });
    a.squares[index] = squares;
}

template <class Work> void for_each_patch(const Patches& a, Work work) {
    const int64_t patches = a.batch * a.kept;
#pragma omp parallel num_threads(int(a.threads))
    {
        std::vector<float> line(a.patch * a.contrasts);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < patches; ++index) work(a, index, line);
    }
}

}  // namespace

extern "C" {

int64_t patches_struct_size() { return sizeof(Patches); }

void patches_gather(const Patches* a) { for_each_patch(*a, a->bfloat16_rows ? gather<bfloat16> : gather<float>); }

void patches_compare(const Patches* a) { for_each_patch(*a, a->bfloat16_rows ? compare<bfloat16> : compare<float>); }
}
