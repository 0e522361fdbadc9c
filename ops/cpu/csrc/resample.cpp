// Trilinear resampling of volumes by an affine map, zero outside. All channels of a voxel share one set of weights.

#include "resample.h"

#include <vector>

#include "debug.h"

namespace {

// One line of output voxels: the corner before each sampled position, and the distance from that corner.
struct Line {
    std::vector<int32_t> z, y, x, base;
    std::vector<float> wz, wy, wx;
    int64_t begin = 0, end = 0;  // voxels between have all eight neighbours inside the volume

    explicit Line(int64_t length) : z(length), y(length), x(length), base(length), wz(length), wy(length), wx(length) {}

    void place(const Resample& r, const double* back, int64_t oz, int64_t oy) {
        float start[3], step[3];
        for (int axis = 0; axis < 3; ++axis) {
            const double* row = back + 4 * axis;
            start[axis] = float(row[0] * double(oz) + row[1] * double(oy) + row[3]);
            step[axis] = float(row[2]);
        }
        // Clamp positions far outside: the result is 0 either way, and they must fit an integer.
        const auto split = [&](int axis, int64_t side, int32_t* whole, float* part) {
            for (int64_t i = 0; i < r.x; ++i) {
                float at = start[axis] + step[axis] * float(i);
                at = at < -2.0f ? -2.0f : at > float(side) ? float(side) : at;
                const int32_t below = int32_t(at + 2.0f) - 2;  // floor, since at >= -2
                whole[i] = below;
                part[i] = at - float(below);
            }
        };
        split(0, r.z, z.data(), wz.data());
        split(1, r.y, y.data(), wy.data());
        split(2, r.x, x.data(), wx.data());
        for (int64_t i = 0; i < r.x; ++i) base[i] = int32_t((z[i] * r.y + y[i]) * r.x + x[i]);
        // Each coordinate is monotone along the line, so the voxels inside form one range.
        begin = 0;
        while (begin < r.x && !inside(r, begin)) ++begin;
        end = r.x;
        while (end > begin && !inside(r, end - 1)) --end;
    }

    bool inside(const Resample& r, int64_t i) const {
        return z[i] >= 0 && z[i] + 1 < r.z && y[i] >= 0 && y[i] + 1 < r.y && x[i] >= 0 && x[i] + 1 < r.x;
    }

    // Neighbours outside the volume count as 0.
    float at_border(const Resample& r, const float* channel, int64_t i) const {
        if (z[i] < -1 || z[i] >= r.z || y[i] < -1 || y[i] >= r.y || x[i] < -1 || x[i] >= r.x) return 0;
        float sum = 0;
        for (int dz = 0; dz < 2; ++dz)
            for (int dy = 0; dy < 2; ++dy)
                for (int dx = 0; dx < 2; ++dx) {
                    const int64_t pz = z[i] + dz, py = y[i] + dy, px = x[i] + dx;
                    if (pz < 0 || pz >= r.z || py < 0 || py >= r.y || px < 0 || px >= r.x) continue;
                    const float weight = (dz ? wz[i] : 1 - wz[i]) * (dy ? wy[i] : 1 - wy[i]) * (dx ? wx[i] : 1 - wx[i]);
                    sum += weight * channel[(pz * r.y + py) * r.x + px];
                }
        return sum;
    }
};

inline float between(float a, float b, float weight) { return a + weight * (b - a); }

void sample_line(const Resample& r, const Line& line, const float* channel, float* out) {
    for (int64_t i = 0; i < line.begin; ++i) out[i] = line.at_border(r, channel, i);
    const float *y1 = channel + r.x, *z1 = channel + r.y * r.x, *zy1 = z1 + r.x;
    const int32_t* base = line.base.data();
    for (int64_t i = line.begin; i < line.end; ++i) {
        const int32_t p = base[i];
        const float wx = line.wx[i], wy = line.wy[i];
        const float near = between(between(channel[p], channel[p + 1], wx), between(y1[p], y1[p + 1], wx), wy);
        const float far = between(between(z1[p], z1[p + 1], wx), between(zy1[p], zy1[p + 1], wx), wy);
        out[i] = between(near, far, line.wz[i]);
    }
    for (int64_t i = line.end; i < r.x; ++i) out[i] = line.at_border(r, channel, i);
}

}  // namespace

extern "C" {

int64_t resample_struct_size() { return sizeof(Resample); }

void resample_affine(const Resample* arguments) {
    const Resample& r = *arguments;
    const int64_t lines = r.z * r.y, voxels = lines * r.x;
    REQUIRE(r.batch >= 0 && r.channels >= 1 && r.z >= 1 && r.y >= 1 && r.x >= 1 && r.threads >= 1);
    REQUIRE(voxels < (int64_t(1) << 31));
    REQUIRE(r.batch == 0 || (r.back && r.volume && r.out));
#pragma omp parallel num_threads(int(r.threads))
    {
        Line line(r.x);
#pragma omp for schedule(dynamic, 16)
        for (int64_t item = 0; item < r.batch * lines; ++item) {
            const int64_t b = item / lines, place = item % lines;
            line.place(r, r.back + 12 * b, place / r.y, place % r.y);
            for (int64_t c = 0; c < r.channels; ++c) {
                const int64_t first = (b * r.channels + c) * voxels;
                sample_line(r, line, r.volume + first, r.out + first + place * r.x);
            }
        }
    }
}
}
