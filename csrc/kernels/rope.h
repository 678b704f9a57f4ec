// Rotary positions.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

template <typename T>
void rotate(T* x, int64_t ld, const float* cos, const float* sin, int64_t tokens, int64_t heads, int64_t d,
            int64_t half) {
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t head = 0; head < heads; ++head) {
      T* first = x + t * ld + head * d;
      T* second = first + half;
      for_vectors(half, [&](int64_t i, auto lanes) {
        const Vec a = load(first + i, lanes);
        const Vec b = load(second + i, lanes);
        const Vec c = load(cos + t * half + i, lanes);
        const Vec s = load(sin + t * half + i, lanes);
        store(first + i, a * c - b * s, lanes);
        store(second + i, b * c + a * s, lanes);
      });
    }
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
