// Attention of one row, and the heads that share its keys and values, with products in the dtype of hidden states.
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
  // key, value: of the row's first token.
  DenseHead(const T* key, const T* value, int64_t tokens, const HeadLayout& layout, const KeyRange& range)
      : range_(range.in_row(tokens)),
        row_keys_(key),
        tokens_(tokens),
        ld_(layout.width()),
        d_(layout.d),
        padded_(round_up(tokens, kKeyStep)) {
    const int64_t d = d_;
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
    kernels().pack_keys(reinterpret_cast<const uint32_t*>(key), ld_ / kPerWord, tokens, d / kPerWord,
                        reinterpret_cast<uint32_t*>(keys_));
    hidden_kernels<T>().pack_values(value, ld_, tokens, d, values_);
  }

  // query: of the row's first token, at a head; received: (tokens) what queries give keys of attention is added to it,
  // null where nobody asks; bias: the head's, see score_bias.h.
  template <typename Bias>
  void attend(T* query, Range queries, float* received, const Bias& bias) {
    for (int64_t q = queries.first; q < queries.last; q += kQueryTile) {
      attend_tile(query + q * ld_, {q, std::min(q + kQueryTile, queries.last)}, received, bias);
    }
  }

 private:
  template <typename Bias>
  void attend_tile(T* queries, Range tile, float* received, const Bias& bias) {
    const HiddenKernels<T>& kernels = hidden_kernels<T>();
    const Range keys = keys_of(range_, tile, tokens_);
    const int64_t count = tile.size();
    float inverse[kQueryTile];
    for_blocks(keys, [&](int64_t k, int64_t size) {
      multiply(count, size, d_, queries, ld_, {keys_ + k * d_, kKeyBlock, kBlock}, scores_ + k, ld_scores_, false);
    });
    bias.add(ScoreTile<T>{tile, keys, queries, row_keys_, ld_, d_, scores_, ld_scores_});
    softmax(tile, keys, 1.0F / std::sqrt(static_cast<float>(d_ * Bias::kProducts)), inverse);
    if (received != nullptr) {
      kernels.add_received(weights_ + keys.first, ld_scores_, inverse, count, keys.size(), received + keys.first);
    }
    for_blocks(keys, [&](int64_t k, int64_t size) {
      multiply(count, d_, size, weights_ + k, ld_scores_, {values_ + k * d_, d_, kBlock}, context_, ld_context_,
               k > keys.first);
    });
    kernels.scale_rows(context_, ld_context_, inverse, count, d_, queries, ld_);
  }

  // f(first key, keys rounded up) for each block of keys.
  template <typename F>
  void for_blocks(Range keys, const F& f) const {
    for (int64_t k = keys.first; k < keys.last; k += kKeyBlock) {
      f(k, std::min(kKeyBlock, round_up(keys.last - k, kKeyStep)));
    }
  }

  // Where queries attend to keys of their own, zeros stand around those.
  void softmax(Range tile, Range keys, float scale, float* inverse) {
    const HiddenKernels<T>& kernels = hidden_kernels<T>();
    if (range_.full()) {
      return kernels.softmax(scores_, ld_scores_, scale, tile.size(), tokens_, weights_, ld_scores_, inverse);
    }
    const int64_t end = round_up(keys.last, kKeyStep);
    for (int64_t q = 0; q < tile.size(); ++q) {
      const Range own = keys_of(range_, tile.first + q, tokens_);
      T* weights = weights_ + q * ld_scores_;
      kernels.softmax(scores_ + q * ld_scores_ + own.first, ld_scores_, scale, 1, own.size(), weights + own.first,
                      ld_scores_, inverse + q);
      std::fill(weights + keys.first, weights + own.first, T{});
      std::fill(weights + std::min(own.last, end), weights + end, T{});
    }
  }

  static constexpr int64_t kPerWord = kWordBytes / static_cast<int64_t>(sizeof(T));  // inputs in a word

  KeyRange range_;
  const T* row_keys_;
  int64_t tokens_, ld_, d_, padded_, ld_scores_, ld_context_;
  T *keys_, *values_, *weights_;
  float *scores_, *context_;
};

}  // namespace moco
