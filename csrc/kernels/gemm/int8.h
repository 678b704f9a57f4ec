// Products of tokens in bytes with int8 weights: exact sums in 32 bits, and floats out of them.
//
// The integers are the same on every processor. Without VNNI, four products are added in 16 bits before they are
// widened; weights are bounded when they are packed so that this cannot overflow (see kMaxToken in kernels.h).
#pragma once

#include "kernels/gemm/tile.h"
#ifdef MOCO_X86_VECTORS
#include <immintrin.h>
#endif
#ifdef MOCO_AMX
#include "kernels/gemm/amx.h"
#endif

namespace moco::MOCO_ISA {
namespace {

#if defined(MOCO_X86_VECTORS) && !defined(MOCO_VNNI)
#if MOCO_VECTOR_BYTES == 64
using Pairs = __m512i;
inline Pairs pairs(BitVec token, BitVec weight) { return _mm512_maddubs_epi16((__m512i)token, (__m512i)weight); }
inline Pairs added(Pairs a, Pairs b) { return _mm512_add_epi16(a, b); }
inline IntVec widened(Pairs a) { return (IntVec)_mm512_madd_epi16(a, _mm512_set1_epi16(1)); }
#else
using Pairs = __m256i;
inline Pairs pairs(BitVec token, BitVec weight) { return _mm256_maddubs_epi16((__m256i)token, (__m256i)weight); }
inline Pairs added(Pairs a, Pairs b) { return _mm256_add_epi16(a, b); }
inline IntVec widened(Pairs a) { return (IntVec)_mm256_madd_epi16(a, _mm256_set1_epi16(1)); }
#endif
#endif

// sum + the products of the four inputs of each word.
inline __attribute__((always_inline)) IntVec add_word(IntVec sum, BitVec token, BitVec weight) {
#ifdef MOCO_VNNI
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)token, (__m512i)weight);
#elif defined(MOCO_X86_VECTORS)
  return sum + widened(pairs(token, weight));
#else
#pragma GCC unroll 4
  for (int shift = 0; shift < 32; shift += 8) {
    sum += (IntVec)((token >> shift) & 255) * ((IntVec)(weight << (24 - shift)) >> 24);
  }
  return sum;
#endif
}

#if defined(MOCO_X86_VECTORS) && !defined(MOCO_VNNI)
// Four products are added in 16 bits before they are widened.
struct Int8Products {
  using Sum = IntVec;
  static constexpr int kRows = 4, kVectors = 2, kSteps = 2, kFetch = 4;
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
    sum += widened(added(pairs(token[0], weight[0]), pairs(token[1], weight[1])));
  }
};
#else
struct Int8Products {
  using Sum = IntVec;
#ifdef MOCO_VNNI
  static constexpr int kRows = 6, kVectors = 4, kSteps = 1, kFetch = 4;
#else
  static constexpr int kRows = 4, kVectors = 2, kSteps = 1, kFetch = 4;
#endif
  static inline __attribute__((always_inline)) void add(IntVec& sum, const BitVec* token, const BitVec* weight) {
    sum = add_word(sum, token[0], weight[0]);
  }
};
#endif

void multiply_int8(int64_t tokens, int64_t columns, int64_t inputs, const Quantized& x, const Columns& weights,
                   const float* scale, const float* sums, float* c, int64_t ld_c) {
  const int64_t words = round_up(inputs, kInt8Inputs) / kWordBytes;
  const auto finish = [&](int64_t t, int64_t n, IntVec sum) __attribute__((always_inline)) {
    const Vec whole = __builtin_convertvector(sum, Vec);
    const Vec value = (whole - load(sums + n, Whole{}) * x.zero[t]) * (load(scale + n, Whole{}) * x.scale[t]);
    store(c + t * ld_c + n, value, Whole{});
  };
#ifdef MOCO_AMX
  for_tile_sums<Int8Tiles>(tokens, columns, words, x.values, x.ld, weights, finish);
#else
  for_sums<Int8Products>(tokens, columns, words, x.values, x.ld, weights, finish);
#endif
}

}  // namespace
}  // namespace moco::MOCO_ISA
