// Token ids to hidden states.
#pragma once

#include "kernels/norm.h"

namespace moco::MOCO_ISA {
namespace {

template <typename T>
void embed(const T* words, const T* positions, const T* types, const int64_t* word, const int64_t* position,
           const int64_t* type, const Norm& norm, int64_t tokens, int64_t D, float* scratch, T* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    for_vectors(D, [&](int64_t d, auto lanes) {
      Vec x = load(words + word[t] * D + d, lanes);
      if (types != nullptr) x += load(types + type[t] * D + d, lanes);
      if (positions != nullptr) x += load(positions + position[t] * D + d, lanes);
      store(scratch + d, x, lanes);
    });
    normalize_token(scratch, norm, D, out + t * D);
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
