// Products of float32 and of bfloat16, summed in float32.
#pragma once

#include "kernels/gemm/tile.h"
#ifdef MOCO_BFLOAT16
#include <immintrin.h>
#endif
#ifdef MOCO_AMX
#include "kernels/gemm/amx.h"
#endif

namespace moco::MOCO_ISA {
namespace {

struct Float32Products {
  using Sum = Vec;
  static constexpr int kRows = kTileRows, kVectors = kTileVectors, kSteps = 1, kFetch = 8;
  static inline __attribute__((always_inline)) void add(Vec& sum, const BitVec* token, const BitVec* weight) {
    sum += (Vec)token[0] * (Vec)weight[0];
  }
};

// Writes a vector of sums to where it belongs in c, or adds it to what stands there.
inline auto to_floats(float* c, int64_t ld_c, bool add) {
  return [=](int64_t m, int64_t n, Vec sum) __attribute__((always_inline)) {
    float* to = c + m * ld_c + n;
    store(to, add ? sum + load(to, Whole{}) : sum, Whole{});
  };
}

void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const Columns& b, float* c, int64_t ld_c,
              bool add) {
  for_sums<Float32Products>(M, N, K, a, ld_a * 4, b, to_floats(c, ld_c, add));
}

#ifdef MOCO_BFLOAT16
struct BFloat16Products {
  using Sum = Vec;
  static constexpr int kRows = kTileRows, kVectors = kTileVectors, kSteps = 1, kFetch = 8;
  static inline __attribute__((always_inline)) void add(Vec& sum, const BitVec* token, const BitVec* weight) {
    sum = (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)token[0], (__m512bh)weight[0]);
  }
};

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const Columns& b, float* c,
              int64_t ld_c, bool add) {
#ifdef MOCO_AMX
  for_tile_sums<BFloat16Tiles>(M, N, K / 2, a, ld_a * 2, b, to_floats(c, ld_c, add));
#else
  for_sums<BFloat16Products>(M, N, K / 2, a, ld_a * 2, b, to_floats(c, ld_c, add));
#endif
}
#endif

}  // namespace
}  // namespace moco::MOCO_ISA
