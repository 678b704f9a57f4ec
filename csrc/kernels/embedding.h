// Token ids to hidden states.
#pragma once

#include "kernels/norm.h"

namespace moco::MOCO_ISA {
namespace {

template <typename T>
void embed(const EmbeddingTables<T>& tables, const int64_t* word, const int64_t* position, const int64_t* type,
           int64_t tokens, int64_t D, float* scratch, T* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    const auto sum = [&](int64_t d, auto lanes) {
      Vec x = load(tables.words + word[t] * D + d, lanes) * tables.scale;
      if (tables.types != nullptr) x += load(tables.types + type[t] * D + d, lanes);
      if (tables.positions != nullptr) x += load(tables.positions + position[t] * D + d, lanes);
      return x;
    };
    if (tables.norm == nullptr) {
      for_vectors(D, [&](int64_t d, auto lanes) { store(out + t * D + d, sum(d, lanes), lanes); });
    } else {
      for_vectors(D, [&](int64_t d, auto lanes) { store(scratch + d, sum(d, lanes), lanes); });
      normalize_token(scratch, *tables.norm, D, out + t * D);
    }
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
