// Products on the tiles of AMX: registers of up to 16 rows of 64 bytes, two of which one instruction multiplies.
//
// A tile of tokens holds 16 words of up to 16 tokens, one of weights the words of a block of 16 columns for the same
// inputs. Two tiles of each give four tiles of sums, so that what is loaded is multiplied twice. Every sum runs over
// the inputs in one order, whatever the number of tokens.
#pragma once

#include <immintrin.h>

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

constexpr int64_t kTileTokens = 16;
constexpr int64_t kTileWords = 16;
constexpr int64_t kTileBytes = kTileWords * kWordBytes;  // of a row
constexpr int64_t kStripTokens = 2 * kTileTokens;

// Tiles 0 to 3 hold sums, those of the first tokens in 0 and 1; 4 and 5 tokens, 6 and 7 weights.
struct Int8Tiles {
  using Sum = IntVec;
  template <int sum>
  static inline __attribute__((always_inline)) void add() {
    if constexpr (sum == 0) _tile_dpbusd(0, 4, 6);
    if constexpr (sum == 1) _tile_dpbusd(1, 4, 7);
    if constexpr (sum == 2) _tile_dpbusd(2, 5, 6);
    if constexpr (sum == 3) _tile_dpbusd(3, 5, 7);
  }
};
struct BFloat16Tiles {
  using Sum = Vec;
  template <int sum>
  static inline __attribute__((always_inline)) void add() {
    if constexpr (sum == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (sum == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (sum == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (sum == 3) _tile_dpbf16ps(3, 5, 7);
  }
};

// Completes what was written there: compilers are not told what the instructions of tiles read.
inline void finish_writing(const void* memory) { asm volatile("" ::"r"(memory) : "memory"); }

// Sets the sizes of all tiles, for a strip of so many tokens.
inline void configure_tiles(int64_t tokens) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  } sizes;
  for (int tile = 0; tile < 8; ++tile) {
    sizes.row_bytes[tile] = kTileBytes;
    sizes.rows[tile] = kTileTokens;
  }
  const auto upper = static_cast<uint8_t>(tokens < kTileTokens ? tokens : kTileTokens);
  sizes.rows[0] = sizes.rows[1] = sizes.rows[4] = upper;
  if (tokens > kTileTokens) {
    sizes.rows[2] = sizes.rows[3] = sizes.rows[5] = static_cast<uint8_t>(tokens - kTileTokens);
  }
  finish_writing(&sizes);
  _tile_loadconfig(&sizes);
}

// Where the operands of a strip stand; ld: bytes from one token, or input's word, to the next.
struct StripOperands {
  const char* a;
  int64_t ld_a;
  const char* b;
  int64_t ld_b, block;  // block: bytes from one block of columns to the next
};

template <typename F, bool two_of_tokens, bool two_blocks>
inline __attribute__((always_inline)) void add_words(const StripOperands& from) {
  _tile_loadd(6, from.b, from.ld_b);
  _tile_loadd(4, from.a, from.ld_a);
  F::template add<0>();
  if constexpr (two_blocks) {
    _tile_loadd(7, from.b + from.block, from.ld_b);
    F::template add<1>();
  }
  if constexpr (two_of_tokens) {
    _tile_loadd(5, from.a + kTileTokens * from.ld_a, from.ld_a);
    F::template add<2>();
    if constexpr (two_blocks) F::template add<3>();
  }
}

// The last words of the inputs, with zeros behind them: beside those, a number that is not finite would stay one.
template <typename F, bool two_of_tokens, bool two_blocks>
inline void add_last_words(int64_t words, int64_t tokens, const StripOperands& from) {
  alignas(64) char a[kStripTokens * kTileBytes] = {};
  alignas(64) char b[2 * kTileWords * kTileBytes] = {};
  for (int64_t t = 0; t < tokens; ++t) {
    memcpy(a + t * kTileBytes, from.a + t * from.ld_a, static_cast<size_t>(words * kWordBytes));
  }
  for (int64_t block = 0; block < (two_blocks ? 2 : 1); ++block) {
    for (int64_t word = 0; word < words; ++word) {
      memcpy(b + (block * kTileWords + word) * kTileBytes, from.b + block * from.block + word * from.ld_b, kTileBytes);
    }
  }
  finish_writing(a);
  finish_writing(b);
  add_words<F, two_of_tokens, two_blocks>({a, kTileBytes, b, kTileBytes, kTileWords * kTileBytes});
}

// finish(token, block, sum) for the sums of one strip of tokens with one or two blocks of columns.
template <typename F, bool two_of_tokens, bool two_blocks, typename Finish>
inline __attribute__((always_inline)) void multiply_strip(int64_t words, int64_t tokens, StripOperands from,
                                                          const Finish& finish) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (; words >= kTileWords; words -= kTileWords) {
    add_words<F, two_of_tokens, two_blocks>(from);
    from.a += kTileBytes;
    from.b += kTileWords * from.ld_b;
  }
  if (words > 0) add_last_words<F, two_of_tokens, two_blocks>(words, tokens, from);
  constexpr int64_t kBlocks = two_blocks ? 2 : 1;
  alignas(64) char sums[kStripTokens * kBlocks * kTileBytes];
  constexpr int64_t ld = kBlocks * kTileBytes;
  _tile_stored(0, sums, ld);
  if constexpr (two_blocks) _tile_stored(1, sums + kTileBytes, ld);
  if constexpr (two_of_tokens) {
    _tile_stored(2, sums + kTileTokens * ld, ld);
    if constexpr (two_blocks) _tile_stored(3, sums + kTileTokens * ld + kTileBytes, ld);
  }
  for (int64_t t = 0; t < tokens; ++t) {
#pragma GCC unroll 2
    for (int64_t block = 0; block < kBlocks; ++block) {
      typename F::Sum sum;
      memcpy(&sum, sums + t * ld + block * kTileBytes, sizeof sum);
      finish(t, block, sum);
    }
  }
}

// finish(row, first column of a block, sum) for all sums of a product of M tokens with N columns.
template <typename F, typename Finish>
inline __attribute__((always_inline)) void for_tile_sums(int64_t M, int64_t N, int64_t words, const void* a,
                                                         int64_t ld_a, const Columns& b, const Finish& finish) {
  static_assert(kWidth == kBlock);
  const int64_t block = b.block * kWordBytes;
  const auto multiply = [&](int64_t first, int64_t tokens, int64_t n) {
    const StripOperands from{static_cast<const char*>(a) + first * ld_a, ld_a,
                             static_cast<const char*>(b.words) + n / kBlock * block, b.ld * kWordBytes, block};
    const auto finish_strip = [&](int64_t t, int64_t of_block, typename F::Sum sum)
                                  __attribute__((always_inline)) { finish(first + t, n + of_block * kBlock, sum); };
    const bool two_blocks = N - n > kBlock;
    if (tokens > kTileTokens) {
      two_blocks ? multiply_strip<F, true, true>(words, tokens, from, finish_strip)
                 : multiply_strip<F, true, false>(words, tokens, from, finish_strip);
    } else {
      two_blocks ? multiply_strip<F, false, true>(words, tokens, from, finish_strip)
                 : multiply_strip<F, false, false>(words, tokens, from, finish_strip);
    }
  };
  const int64_t whole = M / kStripTokens * kStripTokens;
  if (whole > 0) configure_tiles(kStripTokens);
  for (int64_t n = 0; n < N && whole > 0; n += 2 * kBlock) {
    for (int64_t first = 0; first < whole; first += kStripTokens) multiply(first, kStripTokens, n);
  }
  if (whole < M) configure_tiles(M - whole);
  for (int64_t n = 0; n < N && whole < M; n += 2 * kBlock) multiply(whole, M - whole, n);
  _tile_release();  // what a thread leaves in its tiles is saved with it
}

}  // namespace
}  // namespace moco::MOCO_ISA
