// Products with weights most of which are zeros: only the others are stored, and tokens lie side by side.
//
// A vector holds one word of each of kWidth tokens; one weight is spread over a vector and meets them all. Four outputs
// at a time by two vectors of tokens keep eight sums under way, for the latency of a multiply-add, and a weight that
// was spread serves twice. Zeros that are left out add nothing to a sum, and the others are added in the order in which
// dense weights add them, so that of finite numbers the result has the same bits.
#pragma once

#include "kernels/gemm/int8.h"
#include "kernels/gemm/tile.h"
#include "kernels/transpose.h"

namespace moco::MOCO_ISA {
namespace {

// Tokens whose words lie side by side.
constexpr int64_t kStripVectors = 2;
constexpr int64_t kStrip = kStripVectors * kWidth;

template <typename T>
void lay_in_strips(const T* x, int64_t ld, int64_t tokens, int64_t words, float* out, int64_t ld_out) {
  transpose_blocks(x, ld, tokens, words, kStrip, kWidth, out, kStrip * ld_out);
}

// The entries of one step, whose places are in `inputs` and whose weights stand one after the other.
struct WordByWord {
  static inline __attribute__((always_inline)) int64_t place(const uint16_t* inputs, int64_t list) {
    return inputs[list];
  }
  static inline __attribute__((always_inline)) BitVec weight(const char* weights, int64_t n) {
    return spread_word(weights + n * kWordBytes);
  }
};

// The same, four of them in one load: for products that wait for loads, not for multiply-adds.
struct FourByFour {
  static inline __attribute__((always_inline)) int64_t place(const uint16_t* inputs, int64_t list) {
    uint64_t four;
    memcpy(&four, inputs, sizeof four);
    return static_cast<int64_t>((four >> (16 * list)) & 0xffff);
  }
  static inline __attribute__((always_inline)) BitVec weight(const char* weights, int64_t n) {
    const char* first = weights + n / 4 * (4 * kWordBytes);
#if MOCO_VECTOR_BYTES == 64
    const __m128i words = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
    const auto four = (BitVec)_mm512_maskz_broadcast_i32x4(0xffff, words);  // without a mask GCC 12 warns
#elif MOCO_VECTOR_BYTES == 32
    const auto four = (BitVec)_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first)));
#else
    const BitVec four = load_words(first);
#endif
    return __builtin_shuffle(four, ((BitVec)lane_numbers() & ~3U) | static_cast<uint32_t>(n % 4));
  }
};

struct Float32Words {
  using Sum = Vec;
  static inline __attribute__((always_inline)) void add(Vec& sum, BitVec token, BitVec weight) {
    sum += (Vec)token * (Vec)weight;
  }
};
struct Int8Words {
  using Sum = IntVec;
#ifdef MOCO_VNNI
  using Entries = FourByFour;
#else
  using Entries = WordByWord;  // a product is several instructions: it waits for those
#endif
  static inline __attribute__((always_inline)) void add(IntVec& sum, BitVec token, BitVec weight) {
    sum = add_word(sum, token, weight);
  }
};

// The sums of one group of outputs over one list of steps, added to those in `total` or in their place.
//   x: (words, kStrip); inputs: (steps, lists); weights: (steps, lists, run, outputs of a list); total: (kSparsePanel,
//   kStrip)
template <typename F, typename Entries, int lists, int run, int vectors>
inline __attribute__((always_inline)) void sum_group(const char* x, int64_t steps, const uint16_t* inputs,
                                                     const char* weights, const uint8_t* outputs, bool add,
                                                     typename F::Sum (*total)[kStripVectors]) {
  constexpr int64_t kOfList = kSparseGroup / lists;
  typename F::Sum sum[kSparseGroup][vectors] = {};
  for (int64_t step = 0; step < steps; ++step, inputs += lists, weights += kSparseGroup * run * kWordBytes) {
#pragma GCC unroll 4
    for (int64_t list = 0; list < lists; ++list) {
      const char* first = x + Entries::place(inputs, list) * (kStrip * kWordBytes);
#pragma GCC unroll 4
      for (int64_t i = 0; i < run; ++i) {
        BitVec token[vectors];
#pragma GCC unroll 2
        for (int64_t v = 0; v < vectors; ++v) {
          token[v] = load_words(first + (i * kStrip + v * kWidth) * kWordBytes);
        }
#pragma GCC unroll 4
        for (int64_t o = 0; o < kOfList; ++o) {
          const BitVec weight = Entries::weight(weights, (list * run + i) * kOfList + o);
#pragma GCC unroll 2
          for (int64_t v = 0; v < vectors; ++v) F::add(sum[list * kOfList + o][v], token[v], weight);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int64_t o = 0; o < kSparseGroup; ++o) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < vectors; ++v) {
      typename F::Sum& to = total[outputs[o]][v];
      to = add ? to + sum[o][v] : sum[o][v];
    }
  }
}

// finish(first token, tokens, sums) for every strip; sums: (kSparsePanel, kStripVectors) vectors.
template <typename F, typename Entries, int lists, int run, typename Finish>
inline __attribute__((always_inline)) void for_strips_of(int64_t tokens, const uint8_t* x, int64_t ld,
                                                         const SparsePanel& panel, const Finish& finish) {
  constexpr int64_t kGroups = kSparsePanel / kSparseGroup;
  for (int64_t t = 0; t < tokens; t += kStrip) {
    const int64_t count = tokens - t < kStrip ? tokens - t : kStrip;
    typename F::Sum total[kSparsePanel][kStripVectors];
    with_constant<kStripVectors>((count + kWidth - 1) / kWidth, [&](auto vectors) {
      int64_t step = panel.first_step;
      for (int64_t i = 0; i < panel.pieces * kGroups; ++i) {
        const int64_t end = panel.ends[i];
        sum_group<F, Entries, lists, run, vectors.value>(
            reinterpret_cast<const char*>(x + t * ld), end - step, panel.inputs + step * lists,
            static_cast<const char*>(panel.weights) + step * (kSparseGroup * run * kWordBytes),
            panel.outputs + i * kSparseGroup, i >= kGroups, total);
        step = end;
      }
    });
    finish(t, count, total);
  }
}

// c[t][n] = sums[n][t] of one strip.
inline void store_strip(int64_t tokens, int64_t columns, const Vec (*sums)[kStripVectors], float* c, int64_t ld_c) {
  for (int64_t n = 0; n < columns; n += kWidth) {
    for (int64_t v = 0; v * kWidth < tokens; ++v) {
      BitVec square[kWidth];
#pragma GCC unroll 16
      for (int64_t i = 0; i < kWidth; ++i) square[i] = (BitVec)sums[n + i][v];
      transpose_square(square);
      const int64_t left = tokens - v * kWidth < kWidth ? tokens - v * kWidth : kWidth;
      for (int64_t i = 0; i < left; ++i) memcpy(c + (v * kWidth + i) * ld_c + n, &square[i], sizeof(BitVec));
    }
  }
}

template <typename Entries, int lists, int run>
void multiply_sparse(int64_t tokens, int64_t columns, const Quantized& x, const SparsePanel& panel, float* c,
                     int64_t ld_c) {
  for_strips_of<Float32Words, Entries, lists, run>(tokens, x.values, x.ld, panel,
                                                   [&](int64_t t, int64_t count, const Vec(*sums)[kStripVectors]) {
                                                     store_strip(count, columns, sums, c + t * ld_c, ld_c);
                                                   });
}

void multiply_sparse_int8(int64_t tokens, int64_t columns, const Quantized& x, const SparsePanel& panel,
                          const float* scale, const float* sums, float* c, int64_t ld_c) {
  for_strips_of<Int8Words, Int8Words::Entries, kSparseGroup, 1>(
      tokens, x.values, x.ld, panel, [&](int64_t t, int64_t count, const IntVec(*whole)[kStripVectors]) {
        Vec values[kSparsePanel][kStripVectors];
        for (int64_t v = 0; v * kWidth < count; ++v) {
          const auto of_tokens = [&](const float* from) __attribute__((always_inline)) {
            const int64_t first = v * kWidth;
            return count - first < kWidth ? load(from + t + first, Tail{count - first})
                                          : load(from + t + first, Whole{});
          };
          const Vec zero = of_tokens(x.zero);
          const Vec step = of_tokens(x.scale);
          for (int64_t n = 0; n < round_up(columns, kBlock); ++n) {
            values[n][v] = (__builtin_convertvector(whole[n][v], Vec) - sums[n] * zero) * (scale[n] * step);
          }
        }
        store_strip(count, columns, values, c + t * ld_c, ld_c);
      });
}

}  // namespace
}  // namespace moco::MOCO_ISA
