// LayerNorm of one token, and the end of a sub-layer: bias, residual, LayerNorm.
#pragma once

#include <cmath>

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// out = (x - mean) / sqrt(variance + eps) * weight + bias, over D values; torch.nn.LayerNorm.
template <typename T>
inline void normalize(const float* x, const Norm& norm, int64_t D, T* out) {
  Sum values;
  for_parts(D, [&](int64_t d, auto lanes, int64_t part) { values.part[part] += load(x + d, lanes); });
  const float mean = values.total() / static_cast<float>(D);
  Sum squares;
  for_parts(D, [&](int64_t d, auto lanes, int64_t part) {
    const Vec centred = first(load(x + d, lanes) - mean, lanes, Vec{});
    squares.part[part] += centred * centred;
  });
  const float scale = 1.0F / std::sqrt(squares.total() / static_cast<float>(D) + norm.eps);
  for_vectors(D, [&](int64_t d, auto lanes) {
    const Vec centred = load(x + d, lanes) - mean;
    store(out + d, centred * scale * load(norm.weight + d, lanes) + load(norm.bias + d, lanes), lanes);
  });
}

template <typename T>
void add_layer_norm(float* product, const float* bias, const T* residual, const Norm& norm, int64_t tokens, int64_t D,
                    T* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* x = product + t * D;
    for_vectors(D, [&](int64_t d, auto lanes) {
      store(x + d, load(x + d, lanes) + load(bias + d, lanes) + load(residual + t * D + d, lanes), lanes);
    });
    normalize(x, norm, D, out + t * D);
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
