// Matrices of words of 32 bits, transposed in squares of whole vectors.
#pragma once

#include "kernels/vec.h"

namespace moco::MOCO_ISA {
namespace {

// rows: kWidth vectors of a square, transposed in place: log2(kWidth) rounds, each swapping one bit of the row's
// number with the same bit of the lane's.
inline __attribute__((always_inline)) void transpose_square(BitVec* rows) {
  const auto lane = (BitVec)lane_numbers();
#pragma GCC unroll 4
  for (uint32_t bit = 1; bit < kWidth; bit *= 2) {
#pragma GCC unroll 16
    for (uint32_t i = 0; i < kWidth; ++i) {
      if ((i & bit) != 0) continue;
      const BitVec a = rows[i];
      const BitVec b = rows[i | bit];
      // Lanes 0.. of __builtin_shuffle are a's, lanes kWidth.. are b's.
      rows[i] = __builtin_shuffle(a, b, (lane & bit) == 0 ? lane : (lane ^ bit) + kWidth);
      rows[i | bit] = __builtin_shuffle(a, b, (lane & bit) == 0 ? lane | bit : lane + kWidth);
    }
  }
}

// Blocks of tokens side by side: out[block][k][t] = x[block * size + t][k], zeros behind the last token up to a
// multiple of `step`, which is one of kWidth. Words may be of any kind, read as floats; bfloat16 become floats.
//   x: (tokens, inputs); out: (blocks, inputs, size), ld_out from one block to the next
template <typename T>
inline __attribute__((always_inline)) void transpose_blocks(const T* x, int64_t ld, int64_t tokens, int64_t inputs,
                                                            int64_t size, int64_t step, float* out, int64_t ld_out) {
  for (int64_t block = 0; block < tokens; block += size) {
    const int64_t columns = round_up(tokens - block < size ? tokens - block : size, step);
    for_vectors(inputs, [&](int64_t k, auto lanes) {
      for (int64_t t = block; t < block + columns; t += kWidth) {
        BitVec square[kWidth];
        for (int64_t i = 0; i < kWidth; ++i) {
          square[i] = t + i < tokens ? (BitVec)load(x + (t + i) * ld + k, lanes) : BitVec{};
        }
        transpose_square(square);
        const int64_t height = inputs - k < kWidth ? inputs - k : kWidth;
        for (int64_t i = 0; i < height; ++i) memcpy(out + (k + i) * size + t - block, &square[i], sizeof(BitVec));
      }
    });
    out += ld_out;
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
