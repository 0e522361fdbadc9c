// The memory layout of a tensor, as Python passes it (ops/cpu/library.py mirrors these structs field by field).
//
// One call computes one direction, or two over the same tokens. The second direction starts from the other end and adds
// to the results of the first. A tensor that both share has `direction` 0. All strides count elements.
#pragma once

#include <cstdint>
#include <initializer_list>

struct Sequence {  // element (d, b, t, i) at d * direction + b * batch + t * row + i
    void* data;
    int64_t direction, batch, row;
};

struct Matrix {  // element (d, b, g, t, n) at d * direction + b * batch + g * group + t * row + n
    void* data;
    int64_t direction, batch, group, row;
};

// The part of a tensor that belongs to direction d. The tensor may be null.
template <class Tensor> void start_at(Tensor& x, int64_t d, int64_t bytes_per_element) {
    if (x.data) x.data = static_cast<char*>(x.data) + d * x.direction * bytes_per_element;
}

template <class V> void start_at(V*& values, int64_t offset) {
    if (values) values += offset;
}
