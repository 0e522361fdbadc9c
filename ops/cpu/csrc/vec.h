// A register of float channels with its loads and stores, and the few functions that a scan needs. No library is used.
// GCC's and Clang's vector extensions compile to AVX-512, AVX2, SSE or NEON; the width is the widest the target has.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

typedef float vf __attribute__((vector_size(WIDTH * 4)));
typedef int32_t vi __attribute__((vector_size(WIDTH * 4)));
typedef uint16_t vh __attribute__((vector_size(WIDTH * 2)));

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

#define UNROLL _Pragma("GCC unroll 16")  // otherwise GCC spills registers to memory

struct bfloat16 {
    uint16_t bits;
};

template <class V, class S> static inline V cast(S x) {
    static_assert(sizeof(V) == sizeof(S), "same size");
    V y;
    std::memcpy(&y, &x, sizeof y);
    return y;
}

// A value in every lane (0 + x would lose the sign of -0 and cost an addition).
static inline vf splat(float x) {
    vf y;
    for (int i = 0; i < WIDTH; ++i) y[i] = x;
    return y;
}

static inline vf select(vi mask, vf a, vf b) { return cast<vf>((cast<vi>(a) & mask) | (cast<vi>(b) & ~mask)); }
static inline vf max(vf a, vf b) { return select(a > b, a, b); }
static inline vf abs(vf a) { return cast<vf>(cast<vi>(a) & 0x7fffffff); }

static inline vf widen(vh x) {
    typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));
    return cast<vf>(__builtin_convertvector(x, vu) << 16);
}

// Round to nearest even, as PyTorch does; NaN stays NaN. (AVX-512's instruction flushes denormals to zero.)
static inline vh narrow(vf x) {
#if defined(__AVX512BF16__)
    return cast<vh>(_mm512_cvtneps_pbh((__m512)x));
#else
    typedef uint32_t vu __attribute__((vector_size(WIDTH * 4)));
    vu bits = cast<vu>(x), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vu is_nan = cast<vu>(x != x);
    return __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0u), vh);
#endif
}

// 1 / x for 1 <= x <= 4, relative error 1e-7 (a division takes several times as long).
static inline vf reciprocal(vf x) {
#if defined(__AVX512F__)
    const vf guess = (vf)_mm512_rcp14_ps((__m512)x);
    return guess * (2.0f - x * guess);
#else
    return 1.0f / x;
#endif
}

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define COLD __attribute__((noinline, cold))

template <class T> COLD static void copy_some(T* to, const T* from, int count) {
    for (int i = 0; i < count; ++i) to[i] = from[i];
}

// The first `lanes` channels at p; the other lanes are zero and nothing beyond is touched.
static inline vf load(const float* p, int lanes = WIDTH) {
    vf x;
    if (LIKELY(lanes == WIDTH)) {
        std::memcpy(&x, p, sizeof x);
        return x;
    }
    float some[WIDTH] = {};
    copy_some(some, p, lanes);
    std::memcpy(&x, some, sizeof x);
    return x;
}

static inline vf load(const bfloat16* p, int lanes = WIDTH) {
    vh x;
    if (LIKELY(lanes == WIDTH)) {
        std::memcpy(&x, p, sizeof x);
        return widen(x);
    }
    bfloat16 some[WIDTH] = {};
    copy_some(some, p, lanes);
    std::memcpy(&x, some, sizeof x);
    return widen(x);
}

static inline void store(float* p, vf x, int lanes = WIDTH) {
    if (LIKELY(lanes == WIDTH)) {
        std::memcpy(p, &x, sizeof x);
        return;
    }
    float some[WIDTH];
    std::memcpy(some, &x, sizeof x);
    copy_some(p, some, lanes);
}

static inline void store(bfloat16* p, vf x, int lanes = WIDTH) {
    const vh y = narrow(x);
    if (LIKELY(lanes == WIDTH)) {
        std::memcpy(p, &y, sizeof y);
        return;
    }
    bfloat16 some[WIDTH];
    std::memcpy(some, &y, sizeof y);
    copy_some(p, some, lanes);
}

// A row of float32 or bfloat16 values, read as float32.
template <class T> static inline void convert(const T* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; i += WIDTH) {
        const int lanes = count - i < WIDTH ? int(count - i) : WIDTH;
        store(to + i, load(from + i, lanes), lanes);
    }
}

static inline float sum(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)x);
#else
    UNROLL for (int half = WIDTH / 2; half; half /= 2)
        UNROLL for (int i = 0; i < half; ++i) x[i] += x[i + half];
    return x[0];
#endif
}

// 2^x with a relative error of 2e-7. Exactly zero far below the normal range; without AVX-512, from x = -126 down.
#if defined(__AVX512F__)
alignas(64) static const float ROOTS[32] = {  // 2^(i / 32)
    1.0f, 1.0218972f, 1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f, 1.13878858f, 1.1637249f,
    1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f, 1.35425556f, 1.38390994f,
    1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f, 1.5759809f, 1.61049032f, 1.64575553f,
    1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f, 1.8340081f, 1.87416768f, 1.91520655f, 1.95714414f};

static inline vf exp2(vf x) {
    const float magic = 393216.0f;  // 1.5 * 2^18: adding it rounds to a 32nd and leaves its index in the low bits
    vf shifted = x + magic, whole = shifted - magic, f = x - whole;
    vf root = (vf)_mm512_permutex2var_ps(_mm512_load_ps(ROOTS), (__m512i)shifted, _mm512_load_ps(ROOTS + 16));
    // Exact to first order. Coefficients of least error over |f| <= 1/64 would make slow decays 1.5e-5 too fast.
    vf p = (f * 0.055504109f + 0.24022651f) * f + 0.69314718f;
    return (vf)_mm512_scalef_ps((__m512)((p * f) * root + root), (__m512)whole);
}
#else
static inline vf exp2(vf x) {
    const vi tiny = x < -126.0f;
    x = max(x, splat(-126.0f));
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer and leaves it in the low bits
    vf shifted = x + magic, f = x - (shifted - magic);
    vf p = f * 0.0013276470126584172f + 0.009675540961325169f;
    p = p * f + 0.05550713092088699f;
    p = p * f + 0.24022120237350464f;
    p = p * f + 0.6931469440460205f;
    p = p * f + 1.0f;
    return select(tiny, vf{}, cast<vf>(cast<vi>(p) + (cast<vi>(shifted) << 23)));
}
#endif

// log(1 + e) for 0 <= e <= 1, relative error 1e-7: twice the area tangent of e / (2 + e) <= 1/3.
static inline vf log1p(vf e) {
    vf s = e * reciprocal(e + 2.0f), q = s * s;
    vf p = q * 0.1408916711807251f + 0.13980302214622498f;
    p = p * q + 0.20012454688549042f;
    p = p * q + 0.3333315849304199f;
    p = p * q + 1.0f;
    return (s + s) * p;
}

struct Logistic {
    vf sigmoid, small;  // small = exp(-|x|)
};

static inline Logistic logistic(vf x) {
    vf e = exp2(abs(x) * -LOG2_E), s = reciprocal(e + 1.0f);
    return {select(x < 0.0f, e * s, s), e};
}

static inline vf softplus(vf x, vf small) { return max(x, vf{}) + log1p(small); }
