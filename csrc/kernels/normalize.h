// LayerNorm of one token, shared by what ends in it.
#pragma once

#include <cmath>

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// out = (x - mean) / sqrt(variance + eps) * weight + bias, over D values; torch.nn.LayerNorm.
template <typename T>
inline void normalize(const float* x, const Norm& norm, int64_t D, T* out) {
  Vec total = {};
  for_vectors(D, [&](int64_t d, auto lanes) { total += load(x + d, lanes); });
  const float mean = sum(total) / static_cast<float>(D);
  Vec squares = {};
  for_vectors(D, [&](int64_t d, auto lanes) {
    const Vec centred = first(load(x + d, lanes) - mean, lanes, Vec{});
    squares += centred * centred;
  });
  const float scale = 1.0F / std::sqrt(sum(squares) / static_cast<float>(D) + norm.eps);
  for_vectors(D, [&](int64_t d, auto lanes) {
    const Vec centred = load(x + d, lanes) - mean;
    store(out + d, centred * scale * load(norm.weight + d, lanes) + load(norm.bias + d, lanes), lanes);
  });
}

}  // namespace
}  // namespace moco::MOCO_ISA
