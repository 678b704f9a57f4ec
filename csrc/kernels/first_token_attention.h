// Attention of one query per head over the hidden states themselves, so that no key or value is ever computed.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

constexpr int64_t kHeads = 4;  // at a time: a hidden state is read once for all of them

// out[h * ld] = dot(x, query[h])
template <int64_t heads, typename T>
inline void dots(const T* x, const float* query, int64_t D, float* out, int64_t ld) {
  Sum total[heads];
  for_parts(D, [&](int64_t d, auto lanes, int64_t part) {
    const Vec value = load(x + d, lanes);
    for (int64_t h = 0; h < heads; ++h) total[h].part[part] += value * load(query + h * D + d, lanes);
  });
  for (int64_t h = 0; h < heads; ++h) out[h * ld] = total[h].total();
}

// out[h] = sum over tokens of weight[h][t] * x[t], times factor[h]
template <int64_t heads, typename T>
inline void sums(const T* x, const float* weight, int64_t ld, const float* factor, int64_t tokens, int64_t D, T* out) {
  for_vectors(D, [&](int64_t d, auto lanes) {
    Vec total[heads] = {};
    for (int64_t block = 0; block < tokens; block += kKeyBlock) {  // one long sum would round more
      const int64_t end = tokens - block < kKeyBlock ? tokens : block + kKeyBlock;
      Vec part[heads] = {};
      for (int64_t t = block; t < end; ++t) {
        const Vec value = load(x + t * D + d, lanes);
        for (int64_t h = 0; h < heads; ++h) part[h] += value * weight[h * ld + t];
      }
      for (int64_t h = 0; h < heads; ++h) total[h] += part[h];
    }
    for (int64_t h = 0; h < heads; ++h) store(out + h * D + d, total[h] * factor[h], lanes);
  });
}

template <typename T>
void peek_scores(const T* x, const float* query, int64_t tokens, int64_t D, int64_t heads, float* scores, int64_t ld) {
  for (int64_t t = 0; t < tokens; ++t) {
    int64_t h = 0;
    for (; h + kHeads <= heads; h += kHeads) dots<kHeads>(x + t * D, query + h * D, D, scores + h * ld + t, ld);
    for (; h < heads; ++h) dots<1>(x + t * D, query + h * D, D, scores + h * ld + t, ld);
  }
}

template <typename T>
void peek_context(const T* x, const float* weights, int64_t ld, const float* inverse, int64_t tokens, int64_t D,
                  int64_t heads, T* context) {
  int64_t h = 0;
  for (; h + kHeads <= heads; h += kHeads) {
    sums<kHeads>(x, weights + h * ld, ld, inverse + h, tokens, D, context + h * D);
  }
  for (; h < heads; ++h) sums<1>(x, weights + h * ld, ld, inverse + h, tokens, D, context + h * D);
}

}  // namespace
}  // namespace moco::MOCO_ISA
