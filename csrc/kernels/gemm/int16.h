// Products of int16: sums in 32 bits, exact where the caller keeps the numbers small enough.
#pragma once

#include "kernels/gemm/tile.h"
#ifdef MOCO_X86_VECTORS
#include <immintrin.h>
#endif

namespace moco::MOCO_ISA {
namespace {

// sum + a[0] * b[0] + a[1] * b[1], for the two int16 of each word.
inline __attribute__((always_inline)) IntVec add_pairs(IntVec sum, BitVec a, BitVec b) {
#ifdef MOCO_VNNI
  return (IntVec)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(MOCO_X86_VECTORS) && MOCO_VECTOR_BYTES == 64
  return sum + (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(MOCO_X86_VECTORS)
  return sum + (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  const auto low = [](BitVec v) { return (IntVec)(v << 16) >> 16; };
  const auto high = [](BitVec v) { return (IntVec)v >> 16; };
  return sum + low(a) * low(b) + high(a) * high(b);
#endif
}

struct Int16Products {
  using Sum = IntVec;
  static constexpr int kRows = kTileRows, kVectors = kTileVectors, kSteps = 1, kFetch = 0;
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
    sum = add_pairs(sum, token[0], weight[0]);
  }
};

void multiply_int16(int64_t M, int64_t N, int64_t words, const uint32_t* a, int64_t ld_a, const Columns& b, int32_t* c,
                    int64_t ld_c) {
  for_sums<Int16Products>(M, N, words, a, ld_a * kWordBytes, b,
                          [&](int64_t m, int64_t n, IntVec sum)
                              __attribute__((always_inline)) { memcpy(c + m * ld_c + n, &sum, sizeof sum); });
}

void multiply_int16_to_float(int64_t M, int64_t N, int64_t words, const uint32_t* a, int64_t ld_a, const Columns& b,
                             const float* factor, int64_t ld_factor, float* c, int64_t ld_c, bool add) {
  for_sums<Int16Products>(M, N, words, a, ld_a * kWordBytes, b,
                          [&](int64_t m, int64_t n, IntVec sum) __attribute__((always_inline)) {
                            float* to = c + m * ld_c + n;
                            const Vec before = add ? load(to, Whole{}) : Vec{};
                            store(to, before + __builtin_convertvector(sum, Vec) * factor[m * ld_factor], Whole{});
                          });
}

}  // namespace
}  // namespace moco::MOCO_ISA
