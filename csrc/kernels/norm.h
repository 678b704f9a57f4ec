// LayerNorm and RMSNorm of a token, and the end of a sub-layer: bias, residual, norm.
#pragma once

#include <cmath>

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// out = (x - mean) / sqrt(variance + eps) * weight + bias, over D values: torch.nn.LayerNorm; without the mean
// torch.nn.RMSNorm.
template <typename From, typename T>
inline void normalize_token(const From* x, const Norm& norm, int64_t D, T* out) {
  float mean = 0;
  if (!norm.rms) {
    Sum values;
    for_parts(D, [&](int64_t d, auto lanes, int64_t part) { values.part[part] += load(x + d, lanes); });
    mean = values.total() / static_cast<float>(D);
  }
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
void normalize(const T* x, int64_t ld, const Norm& norm, int64_t tokens, int64_t D, T* out, int64_t ld_out) {
  for (int64_t t = 0; t < tokens; ++t) normalize_token(x + t * ld, norm, D, out + t * ld_out);
}

template <typename T>
void add_residual(float* product, const float* bias, const T* residual, const Norm* norm, int64_t tokens, int64_t D,
                  T* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* x = product + t * D;
    const auto sum = [&](int64_t d, auto lanes) {
      return load(x + d, lanes) + load(bias + d, lanes) + load(residual + t * D + d, lanes);
    };
    if (norm == nullptr) {
      for_vectors(D, [&](int64_t d, auto lanes) { store(out + t * D + d, sum(d, lanes), lanes); });
    } else {
      for_vectors(D, [&](int64_t d, auto lanes) { store(x + d, sum(d, lanes), lanes); });
      normalize_token(x, *norm, D, out + t * D);
    }
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
