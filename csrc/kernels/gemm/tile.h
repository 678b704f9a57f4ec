// The loops of a product: tiles of a few tokens by a few vectors of columns, whose sums stay in registers.
//
// A product of any format multiplies words of 4 bytes: one float32, two bfloat16 or four int8 of successive inputs. A
// token's word is spread over a vector and meets the words of as many columns. A format says how:
//   Sum                      the vectors that sums are kept in
//   kRows, kVectors          the size of a tile, as many sums as registers allow
//   kSteps                   words that are multiplied at a time
//   kFetch                   fetches what is read next while it multiplies, for so many strips of tokens at most: where
//                            weights come from far away; many tokens find them in the cache
//   add(sum, token, weight)  adds their products, each kSteps vectors of words
// Every sum runs over the inputs in one order, so that it does not depend on the tile, nor on the width of a vector.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// Sums in registers, of most formats: 6 x 4 of 32 vectors with AVX-512, 6 x 2 of 16 otherwise; the rest holds operands.
constexpr int kTileRows = 6;
constexpr int kTileVectors = MOCO_VECTOR_BYTES == 64 ? 4 : 2;

inline __attribute__((always_inline)) BitVec load_words(const char* p) {
  BitVec v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline __attribute__((always_inline)) BitVec spread_word(const char* p) {
  uint32_t word;
  memcpy(&word, p, sizeof word);
  return BitVec{} + word;
}

// Where a tile begins. ld_a: bytes from one token to the next; ld_b, block: as in Columns, in bytes.
struct TileOperands {
  const char* a;
  int64_t ld_a;
  const char* b;
  int64_t ld_b, block;
  const char* ahead;  // what will be read next, fetched on the way: ld_ahead bytes of each block for every word
  int64_t ld_ahead;
};

// finish(row, vector, sum) for every sum of one tile. words: a multiple of F::kSteps
template <typename F, int rows, int vectors, bool fetch, typename Finish>
inline __attribute__((always_inline)) void multiply_tile(int64_t words, const TileOperands& from,
                                                         const Finish& finish) {
  typename F::Sum sum[rows][vectors] = {};
#pragma GCC unroll 2
  for (int64_t k = 0; k < words; k += F::kSteps) {
    if constexpr (fetch) {
#pragma GCC unroll 4
      for (int64_t block = 0; block < (vectors * kWidth + kBlock - 1) / kBlock; ++block) {
        __builtin_prefetch(from.ahead + block * from.block + k * from.ld_ahead);
      }
    }
    BitVec weight[vectors][F::kSteps];
#pragma GCC unroll 4
    for (int64_t j = 0; j < vectors; ++j) {
#pragma GCC unroll 2
      for (int64_t step = 0; step < F::kSteps; ++step) {
        const int64_t column = j * kWidth;
        weight[j][step] =
            load_words(from.b + (k + step) * from.ld_b + column / kBlock * from.block + column % kBlock * kWordBytes);
      }
    }
#pragma GCC unroll 8
    for (int64_t i = 0; i < rows; ++i) {
      BitVec token[F::kSteps];
#pragma GCC unroll 2
      for (int64_t step = 0; step < F::kSteps; ++step) {
        token[step] = spread_word(from.a + i * from.ld_a + (k + step) * kWordBytes);
      }
#pragma GCC unroll 4
      for (int64_t j = 0; j < vectors; ++j) F::add(sum[i][j], token, weight[j]);
    }
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int64_t j = 0; j < vectors; ++j) finish(i, j, sum[i][j]);
  }
}

// g(Constant<value>{}) for a value of 1 ... most.
template <int number>
struct Constant {
  static constexpr int value = number;
};
template <int most, typename G>
inline __attribute__((always_inline)) void with_constant(int64_t value, const G& g) {
  if constexpr (most > 1) {
    if (value < most) return with_constant<most - 1>(value, g);
  }
  g(Constant<most>{});
}

// finish(row, first column of a vector, sum) for all sums of a product of M tokens with N columns, in strips of tokens.
template <typename F, bool fetch, typename Finish>
inline __attribute__((always_inline)) void for_strips(int64_t strips, int64_t M, int64_t N, int64_t words,
                                                      const void* a, int64_t ld_a, const Columns& b,
                                                      const Finish& finish) {
  const int64_t ld = b.ld * kWordBytes;
  const int64_t block = b.block * kWordBytes;
  const int64_t step = ld / strips;  // each strip fetches its share
  for (int64_t n = 0; n < N; n += F::kVectors * kWidth) {
    const int64_t left = (N - n + kWidth - 1) / kWidth;
    with_constant<F::kVectors>(left < F::kVectors ? left : F::kVectors, [&](auto vectors) {
      const char* columns = static_cast<const char*>(b.words) + n / kBlock * block + n % kBlock * kWordBytes;
      const char* next = columns + F::kVectors * kWidth / kBlock * block;
      for (int64_t strip = 0; strip < strips; ++strip) {  // as equal as they can be: a thin one is slow
        const int64_t first = strip * M / strips;
        const TileOperands from{
            static_cast<const char*>(a) + first * ld_a, ld_a, columns, ld, block, next + strip * words * step, step};
        with_constant<F::kRows>((strip + 1) * M / strips - first, [&](auto rows) {
          multiply_tile<F, rows.value, vectors.value, fetch>(
              words, from, [&](int64_t i, int64_t j, auto sum) __attribute__((always_inline)) {
                finish(first + i, n + j * kWidth, sum);
              });
        });
      }
    });
  }
}

template <typename F, typename Finish>
inline __attribute__((always_inline)) void for_sums(int64_t M, int64_t N, int64_t words, const void* a, int64_t ld_a,
                                                    const Columns& b, const Finish& finish) {
  const int64_t strips = (M + F::kRows - 1) / F::kRows;
  if (strips <= F::kFetch) {
    for_strips<F, true>(strips, M, N, words, a, ld_a, b, finish);
  } else {
    for_strips<F, false>(strips, M, N, words, a, ld_a, b, finish);
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
