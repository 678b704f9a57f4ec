// The mean over a row's tokens, which exit rules read, and the score that they compare with their threshold.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// A float sum may not be reordered by the compiler, so that one accumulator would mean one addition at a
// time. kLanes accumulators in a fixed order vectorise at every width, round less, and give a row the same
// bits whatever it is batched with.
constexpr int64_t kLanes = 32;

using DoubleVec = double __attribute__((vector_size(2 * MOCO_VECTOR_BYTES)));

float dot(const float* a, const float* b, int64_t size) {
  float lane[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) lane[j] += a[k + j] * b[k + j];
  }
  for (int64_t j = 0; k < size; ++k, ++j) lane[j] += a[k] * b[k];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t j = 0; j < width; ++j) lane[j] += lane[j + width];
  }
  return lane[0];
}

void linear_score(const float* x, const float* weight, float bias, int64_t rows, int64_t size, float* score) {
  for (int64_t r = 0; r < rows; ++r) score[r] = dot(x + r * size, weight, size) + bias;
}

template <typename T>
void mean_pool(const T* hidden, const int32_t* cu_seqlens, int64_t rows, int64_t D, float* mean) {
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t begin = cu_seqlens[r];
    const int64_t end = cu_seqlens[r + 1];
    for_vectors(D, [&](int64_t d, auto lanes) {
      DoubleVec sum = {};  // in float a row of 512 tokens errs more than torch's cascade of sums does
      for (int64_t t = begin; t < end; ++t) {
        sum += __builtin_convertvector(load(hidden + t * D + d, lanes), DoubleVec);
      }
      store(mean + r * D + d, __builtin_convertvector(sum / static_cast<double>(end - begin), Vec), lanes);
    });
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
