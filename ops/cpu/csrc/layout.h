// Where the elements of a tensor are, as Python passes it (ops/cpu/library.py mirrors these structs field by field).
//
// One call does one direction, or two over the same tokens: the second reads from the other end than the first, and
// adds to what they share, whose `direction` is 0. All strides count elements.
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

// The tensor, which may be absent, from direction d on.
template <class Tensor> void start_at(Tensor& x, int64_t d, int64_t bytes_per_element) {
    if (x.data) x.data = static_cast<char*>(x.data) + d * x.direction * bytes_per_element;
}

template <class V> void start_at(V*& values, int64_t offset) {
    if (values) values += offset;
}
