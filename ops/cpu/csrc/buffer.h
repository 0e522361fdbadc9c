// Temporary memory of a kernel: aligned and uninitialised, which std::vector cannot be.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

template <class V> struct Buffer {
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

