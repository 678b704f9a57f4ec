// The end of a sub-layer: bias, residual, LayerNorm.
#pragma once

#include "kernels/normalize.h"

namespace moco::MOCO_ISA {
namespace {

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
