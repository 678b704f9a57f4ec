// Products of tokens in bytes with int8 weights: exact sums in 32 bits, and floats out of them.
//
// The integers are the same on every processor. Without VNNI, four products are added in 16 bits before they are
// widened; weights are bounded when they are packed so that this cannot overflow (see kMaxToken in kernels.h).
#pragma once

#include "kernels/gemm/tile.h"
#ifdef MOCO_X86_VECTORS
#include <immintrin.h>
#endif

namespace moco::MOCO_ISA {
namespace {

#ifdef MOCO_VNNI
struct Int8Products {
  using Sum = IntVec;
  static constexpr int kRows = 6, kVectors = 4, kSteps = 1, kFetch = 4;
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
    sum = (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)token[0], (__m512i)weight[0]);
  }
};
#elif defined(MOCO_X86_VECTORS)
#if MOCO_VECTOR_BYTES == 64
inline __m512i pairs(BitVec token, BitVec weight) { return _mm512_maddubs_epi16((__m512i)token, (__m512i)weight); }
inline IntVec widened(__m512i a, __m512i b) {
  return (IntVec)_mm512_madd_epi16(_mm512_add_epi16(a, b), _mm512_set1_epi16(1));
}
#else
inline __m256i pairs(BitVec token, BitVec weight) { return _mm256_maddubs_epi16((__m256i)token, (__m256i)weight); }
inline IntVec widened(__m256i a, __m256i b) {
  return (IntVec)_mm256_madd_epi16(_mm256_add_epi16(a, b), _mm256_set1_epi16(1));
}
#endif
struct Int8Products {
  using Sum = IntVec;
  static constexpr int kRows = 4, kVectors = 2, kSteps = 2, kFetch = 4;
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
    sum += widened(pairs(token[0], weight[0]), pairs(token[1], weight[1]));
  }
};
#else
struct Int8Products {
  using Sum = IntVec;
  static constexpr int kRows = 4, kVectors = 2, kSteps = 1, kFetch = 4;
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
#pragma GCC unroll 4
    for (int shift = 0; shift < 32; shift += 8) {
      sum += (IntVec)((token[0] >> shift) & 255) * ((IntVec)(weight[0] << (24 - shift)) >> 24);
    }
  }
};
#endif

void multiply_int8(int64_t tokens, int64_t columns, int64_t inputs, const Quantized& x, const Columns& weights,
                   const float* scale, const float* sums, float* c, int64_t ld_c) {
  const int64_t words = round_up(inputs, kInt8Inputs) / kWordBytes;
  for_sums<Int8Products>(tokens, columns, words, x.values, x.ld, weights,
                         [&](int64_t t, int64_t n, IntVec sum) __attribute__((always_inline)) {
                           const Vec whole = __builtin_convertvector(sum, Vec);
                           const Vec value =
                               (whole - load(sums + n, Whole{}) * x.zero[t]) * (load(scale + n, Whole{}) * x.scale[t]);
                           store(c + t * ld_c + n, value, Whole{});
                         });
}

}  // namespace
}  // namespace moco::MOCO_ISA
