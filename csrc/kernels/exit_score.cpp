// What an exit rule looks at (the mean over a row's tokens) and the score it compares with its threshold.
#include "kernels/declarations.h"

namespace moco::MOCO_ISA {

namespace {

// A float sum may not be reordered by the compiler, so that one accumulator would mean one addition at a
// time. kLanes accumulators in a fixed order vectorise at every width, round less, and give a row the same
// bits whatever it is batched with.
constexpr int64_t kLanes = 32;

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

}  // namespace

void linear_score(const float* x, const float* weight, float bias, int64_t rows, int64_t size, float* score) {
  for (int64_t r = 0; r < rows; ++r) score[r] = dot(x + r * size, weight, size) + bias;
}

void mean_pool(const float* hidden, const int32_t* cu_seqlens, int64_t rows, int64_t D, float* mean) {
  for (int64_t r = 0; r < rows; ++r) {
    float* out = mean + r * D;
    for (int64_t d = 0; d < D; ++d) out[d] = 0;
    for (int64_t t = cu_seqlens[r]; t < cu_seqlens[r + 1]; ++t) {
      const float* token = hidden + t * D;
      for (int64_t d = 0; d < D; ++d) out[d] += token[d];
    }
    const auto length = static_cast<float>(cu_seqlens[r + 1] - cu_seqlens[r]);
    for (int64_t d = 0; d < D; ++d) out[d] /= length;
  }
}

}  // namespace moco::MOCO_ISA
