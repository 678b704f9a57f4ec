// The steps around the two products of attention: operands laid out for them, and the softmax between them.
#pragma once

#include "kernels/transpose.h"

namespace moco::MOCO_ISA {
namespace {

// Words of 32 bits: one float, or a pair of bfloat16.
void pack_keys(const uint32_t* keys, int64_t ld, int64_t tokens, int64_t words, uint32_t* packed) {
  transpose_blocks(reinterpret_cast<const float*>(keys), ld, tokens, words, kKeyBlock, kKeyStep,
                   reinterpret_cast<float*>(packed), words * kKeyBlock);
}

void pack_values(const float* values, int64_t ld, int64_t tokens, int64_t size, float* packed) {
  for (int64_t t = 0; t < tokens; ++t) memcpy(packed + t * size, values + t * ld, static_cast<size_t>(size) * 4);
  memset(packed + tokens * size, 0, static_cast<size_t>((round_up(tokens, kKeyStep) - tokens) * size) * 4);
}

// Pairs of tokens side by side, as the products of bfloat16 read them: packed[t / 2][size][t % 2].
void pack_values(const bfloat16* values, int64_t ld, int64_t tokens, int64_t size, bfloat16* packed) {
  for (int64_t t = 0; t < round_up(tokens, kKeyStep); t += 2) {
    bfloat16* pair = packed + t * size;
    for_vectors(size, [&](int64_t d, auto lanes) {
      // The bits of a bfloat16 are the upper half of the same number's float.
      const BitVec even = t < tokens ? (BitVec)load(values + t * ld + d, lanes) >> 16 : BitVec{};
      const BitVec odd = t + 1 < tokens ? (BitVec)load(values + (t + 1) * ld + d, lanes) : BitVec{};
      store(reinterpret_cast<float*>(pair + 2 * d), (Vec)(even | odd), lanes);
    });
  }
}

void add_to_scores(const float* bias, int64_t ld_bias, int64_t queries, int64_t keys, float* scores,
                   int64_t ld_scores) {
  for (int64_t q = 0; q < queries; ++q) {
    const float* own = bias + q * ld_bias;
    float* score = scores + q * ld_scores;
    for_vectors(keys,
                [&](int64_t k, auto lanes) { store(score + k, load(score + k, lanes) + load(own + k, lanes), lanes); });
  }
}

void add_transposed_to_scores(const float* bias, int64_t ld_bias, int64_t queries, int64_t keys, float* scores,
                              int64_t ld_scores) {
  for (int64_t k = 0; k < keys; k += kWidth) {
    const int64_t height = keys - k < kWidth ? keys - k : kWidth;
    for_vectors(queries, [&](int64_t q, auto lanes) {
      BitVec square[kWidth];
      for (int64_t i = 0; i < kWidth; ++i) {
        square[i] = i < height ? (BitVec)load(bias + (k + i) * ld_bias + q, lanes) : BitVec{};
      }
      transpose_square(square);
      for (int64_t i = 0; i < kWidth && q + i < queries; ++i) {
        float* score = scores + (q + i) * ld_scores + k;
        store(score, load(score, Whole{}) + (Vec)square[i], Whole{});
      }
    });
  }
}

template <typename T>
void softmax(const float* scores, int64_t ld_scores, float scale, int64_t queries, int64_t keys, T* weights,
             int64_t ld_weights, float* inverse) {
  const int64_t padded = round_up(keys, kKeyStep);
  for (int64_t q = 0; q < queries; ++q) {
    const float* score = scores + q * ld_scores;
    T* weight = weights + q * ld_weights;
    Vec top = splat(score[0]);
    for_vectors(keys, [&](int64_t k, auto lanes) { top = max(top, first(load(score + k, Whole{}), lanes, top)); });
    const float largest = max(top);
    Sum total;
    for_parts(keys, [&](int64_t k, auto lanes, int64_t part) {
      const Vec x = (load(score + k, Whole{}) - largest) * scale;
      const Vec e = first(sizeof(T) == sizeof(bfloat16) ? exp_to_8_bits(x) : exp(x), lanes, Vec{});
      total.part[part] += e;
      store(weight + k, e, Whole{});
    });
    for (int64_t k = round_up(keys, kWidth); k < padded; k += kWidth) store(weight + k, Vec{}, Whole{});
    inverse[q] = 1.0F / total.total();
  }
}

template <typename T>
void add_received(const T* weights, int64_t ld_weights, const float* inverse, int64_t queries, int64_t keys,
                  float* received) {
  for_vectors(keys, [&](int64_t k, auto lanes) {
    Vec sum = load(received + k, lanes);
    for (int64_t q = 0; q < queries; ++q) sum += load(weights + q * ld_weights + k, lanes) * inverse[q];
    store(received + k, sum, lanes);
  });
}

template <typename T>
void scale_rows(const float* x, int64_t ld, const float* factor, int64_t rows, int64_t size, T* out, int64_t ld_out) {
  for (int64_t r = 0; r < rows; ++r) {
    for_vectors(size, [&](int64_t d, auto lanes) {
      store(out + r * ld_out + d, load(x + r * ld + d, lanes) * factor[r], lanes);
    });
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
