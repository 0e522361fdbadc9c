// Patches of a volume as rows, and the squared error of predicted patches, read directly from the volume.

#include "patches.h"

#include <cmath>
#include <vector>

#include "debug.h"
#include "vec.h"

namespace {

const float* corner(const Patches& a, int64_t index) {
    const int64_t id = a.ids[index], x = id % a.grid_x, y = id / a.grid_x % a.grid_y, z = id / a.grid_x / a.grid_y;
    return a.volume + index / a.kept * a.batch_stride + a.patch * (z * a.plane_stride + y * a.line_stride + x);
}

// The values of `planes` planes of a patch.
int64_t values(const Patches& a, int64_t planes) { return planes * a.patch * a.patch * a.contrasts; }

template <class T> T* row(const Patches& a, int64_t index, int64_t planes) {
    return static_cast<T*>(a.rows) + index * values(a, planes);
}

// Call work(line of the first contrast) for the lines of a patch's planes from `first` on. Prefetches the next plane:
// lines lie too far apart for the hardware prefetcher.
template <class Work>
inline void each_line(const Patches& a, int64_t index, int64_t first, int64_t planes, Work work) {
    const float* plane = corner(a, index) + first * a.plane_stride;
    for (int64_t z = 0; z < planes; ++z, plane += a.plane_stride)
        for (int64_t y = 0; y < a.patch; ++y) {
            const float *line = plane + y * a.line_stride, *next = line + a.plane_stride;
            for (int64_t c = 0; z + 1 < planes && c < a.contrasts; ++c)
                for (int64_t x = 0; x < a.patch; x += 16) __builtin_prefetch(next + c * a.contrast_stride + x);
            work(line);
        }
}

// One line of voxels, contrasts interleaved. P: the patch size where it is known to the compiler, else 0.
template <int P> inline void interleave_four(const Patches& a, const float* from, float* line) {
    const float *s1 = from + a.contrast_stride, *s2 = s1 + a.contrast_stride, *s3 = s2 + a.contrast_stride;
    const int64_t count = P ? P : a.patch;
    for (int64_t x = 0; x < count; ++x) {
        line[4 * x] = from[x];
        line[4 * x + 1] = s1[x];
        line[4 * x + 2] = s2[x];
        line[4 * x + 3] = s3[x];
    }
}

inline void interleave(const Patches& a, const float* from, float* line) {
    if (a.contrasts == 4) {
        if (a.patch == 4) return interleave_four<4>(a, from, line);
        if (a.patch == 8) return interleave_four<8>(a, from, line);
        if (a.patch == 16) return interleave_four<16>(a, from, line);
        return interleave_four<0>(a, from, line);
    }
    for (int64_t c = 0; c < a.contrasts; ++c, from += a.contrast_stride)
        for (int64_t x = 0; x < a.patch; ++x) line[x * a.contrasts + c] = from[x];
}

template <class Work> inline void each_register(int64_t count, Work work) {
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH) work(i, WIDTH);
    if (i < count) work(i, int(count - i));
}

// Mean of a patch, and 1 / sqrt(unbiased variance + 1e-6) (docs/method.md#masked-autoencoder).
void measure(const Patches& a, int64_t index, float* line) {
    const double count = double(values(a, a.patch));
    const auto total = [&](auto of) {
        double sums = 0;
        each_line(a, index, 0, a.patch, [&](const float* from) {
            interleave(a, from, line);
            vf here{};
            each_register(a.patch * a.contrasts, [&](int64_t i, int lanes) {
                vf x = of(load(line + i, lanes));
                for (int l = lanes; l < WIDTH; ++l) x[l] = 0;
                here += x;
            });
            sums += sum(here);
        });
        return sums;
    };
    const float mean = float(total([](vf x) { return x; }) / count);
    const double squares = total([mean](vf x) { return (x - mean) * (x - mean); });
    a.moments[2 * index] = mean;
    a.moments[2 * index + 1] = float(1 / std::sqrt(squares / (count - 1) + 1e-6));
}

template <class T> void gather(const Patches& a, int64_t index, float* line) {
    T* to = row<T>(a, index, a.patch);
    if (a.contrasts_first) {
        const float* from = corner(a, index);
        for (int64_t c = 0; c < a.contrasts; ++c, from += a.contrast_stride)
            for (int64_t z = 0; z < a.patch; ++z)
                for (int64_t y = 0; y < a.patch; ++y, to += a.patch) {
                    const float* voxels = from + z * a.plane_stride + y * a.line_stride;
                    each_register(a.patch, [&](int64_t i, int lanes) { store(to + i, load(voxels + i, lanes), lanes); });
                }
        return;
    }
    each_line(a, index, 0, a.patch, [&](const float* from) {
        interleave(a, from, line);
        each_register(a.patch * a.contrasts,
                      [&](int64_t i, int lanes) { store(to + i, load(line + i, lanes), lanes); });
        to += a.patch * a.contrasts;
    });
}

template <class T> void compare(const Patches& a, int64_t index, float* line) {
    T* place = row<T>(a, index, a.planes);
    if (a.moments && a.first_plane == 0) measure(a, index, line);
    const float mean = a.moments ? a.moments[2 * index] : 0, inverse = a.moments ? a.moments[2 * index + 1] : 1;
    double squares = 0;
    each_line(a, index, a.first_plane, a.planes, [&](const float* from) {
        interleave(a, from, line);
        vf here{};
        each_register(a.patch * a.contrasts, [&](int64_t i, int lanes) {
            const vf target = (load(line + i, lanes) - mean) * inverse;
            vf error = load(place + i, lanes) - target;
            store(place + i, error, lanes);
            for (int l = lanes; l < WIDTH; ++l) error[l] = 0;
            here += error * error;
        });
        squares += sum(here);
        place += a.patch * a.contrasts;
    });
    a.squares[index] += squares;
}

// Call work(index, memory for a line) for every patch.
template <class Work> void for_each_patch(const Patches& a, Work work) {
    const int64_t patches = a.batch * a.kept;
    REQUIRE(a.batch >= 0 && a.kept >= 0 && a.contrasts >= 1 && a.patch >= 1 && a.threads >= 1);
    REQUIRE(a.grid_z >= 1 && a.grid_y >= 1 && a.grid_x >= 1);
    REQUIRE(a.first_plane >= 0 && a.planes >= 0 && a.first_plane + a.planes <= a.patch);
    REQUIRE(patches == 0 || (a.volume && a.ids && a.rows));
    for (int64_t index = 0; CHECKED && index < patches; ++index)
        REQUIRE(a.ids[index] >= 0 && a.ids[index] < a.grid_z * a.grid_y * a.grid_x);
#pragma omp parallel num_threads(int(a.threads))
    {
        std::vector<float> line(a.patch * a.contrasts);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < patches; ++index) work(a, index, line.data());
    }
}

}  // namespace

extern "C" {

int64_t patches_struct_size() { return sizeof(Patches); }

void patches_gather(const Patches* a) { for_each_patch(*a, a->bfloat16_rows ? gather<bfloat16> : gather<float>); }

void patches_compare(const Patches* a) { for_each_patch(*a, a->bfloat16_rows ? compare<bfloat16> : compare<float>); }
}
