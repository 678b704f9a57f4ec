// Attention of one row and head with products in the dtype of hidden states.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/isa.h"
#include "core/parallel.h"
#include "core/scratch.h"
#include "linear/products.h"
#include "transformer/varlen_attention.h"

namespace moco {

template <typename T>
class DenseHead {
 public:
  // qkv: the row's first token, at the head.
  DenseHead(T* qkv, int64_t tokens, int64_t heads, int64_t d)
      : queries_(qkv), tokens_(tokens), ld_(3 * heads * d), d_(d), padded_(round_up(tokens, kKeyStep)) {
    static thread_local Scratch keys, values, scores, weights, context;
    keys_ = keys.of<T>(round_up(tokens, kKeyBlock) * d);
    values_ = values.of<T>(padded_ * d + kBlock * kPerWord);  // products read whole blocks
    // The same for most rows, because oneDNN compiles a kernel for every stride; not a power of two, which would crowd
    // the tile into few sets of the cache.
    ld_scores_ = round_up(padded_, 512) + kKeyStep;
    scores_ = scores.of<float>(kQueryTile * ld_scores_);
    if constexpr (std::is_same_v<T, float>) {
      weights_ = scores_;
    } else {
      weights_ = weights.of<T>(kQueryTile * ld_scores_);
    }
    ld_context_ = round_up(d, kBlock);
    context_ = context.of<float>(kQueryTile * ld_context_);
    kernels().pack_keys(reinterpret_cast<const uint32_t*>(qkv + heads * d), ld_ / kPerWord, tokens, d / kPerWord,
                        reinterpret_cast<uint32_t*>(keys_));
    hidden_kernels<T>().pack_values(qkv + 2 * heads * d, ld_, tokens, d, values_);
  }

  void attend(Range queries) {
    for (int64_t q = queries.first; q < queries.last; q += kQueryTile) {
      attend_tile(queries_ + q * ld_, std::min(kQueryTile, queries.last - q));
    }
  }

 private:
  // f(first key, keys rounded up) for each block of keys.
  template <typename F>
  void for_blocks(const F& f) const {
    for (int64_t k = 0; k < tokens_; k += kKeyBlock) f(k, std::min(kKeyBlock, padded_ - k));
  }

  void attend_tile(T* queries, int64_t count) {
    const HiddenKernels<T>& kernels = hidden_kernels<T>();
    float inverse[kQueryTile];
    for_blocks([&](int64_t k, int64_t keys) {
      multiply(count, keys, d_, queries, ld_, {keys_ + k * d_, kKeyBlock, kBlock}, scores_ + k, ld_scores_, false);
    });
    const float scale = 1.0F / std::sqrt(static_cast<float>(d_));
    kernels.softmax(scores_, ld_scores_, scale, count, tokens_, weights_, ld_scores_, inverse);
    for_blocks([&](int64_t k, int64_t keys) {
      multiply(count, d_, keys, weights_ + k, ld_scores_, {values_ + k * d_, d_, kBlock}, context_, ld_context_, k > 0);
    });
    kernels.scale_rows(context_, ld_context_, inverse, count, d_, queries, ld_);
  }

  static constexpr int64_t kPerWord = kWordBytes / static_cast<int64_t>(sizeof(T));  // inputs in a word

  T* queries_;
  int64_t tokens_, ld_, d_, padded_, ld_scores_, ld_context_;
  T *keys_, *values_, *weights_;
  float *scores_, *context_;
};

}  // namespace moco
