// Attention of one row, and the heads that share its keys and values, in int16, for models in int8: whole numbers,
// whose products are summed exactly.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/isa.h"
#include "core/parallel.h"
#include "core/scratch.h"
#include "transformer/varlen_attention.h"

namespace moco {

class Int16Head {
 public:
  // key, value: of the row's first token; d is even.
  Int16Head(const float* key, const float* value, int64_t tokens, const HeadLayout& layout, const KeyRange& range)
      : range_(range.in_row(tokens)),
        tokens_(tokens),
        ld_(layout.width()),
        d_(layout.d),
        limit_(limit_of_keys(layout.d)) {
    const int64_t d = d_;
    static thread_local Scratch words, queries, keys, values, scores, weights, parts, tops, context;
    query_words_ = queries.of<uint32_t>(kQueryTile * d / 2);
    keys_ = keys.of<uint32_t>(round_up(tokens, kKeyBlock) * d / 2);
    values_ = values.of<uint32_t>(weight_words(tokens) * d + kBlock);  // products read whole blocks
    ld_scores_ = round_up(tokens, kKeyBlock) + kKeyStep;  // not a power of two, which would crowd few sets of the cache
    scores_ = scores.of<int32_t>(kQueryTile * ld_scores_);
    weights_ = weights.of<uint32_t>(kQueryTile * ld_scores_);
    ld_parts_ = (tokens + kKeySpan - 1) / kKeySpan;
    parts_ = parts.of<float>(kQueryTile * ld_parts_);
    tops_ = tops.of<int32_t>(ld_parts_);
    ld_context_ = round_up(d, kBlock);
    context_ = context.of<float>(kQueryTile * ld_context_);

    const Int16Attention& kernels = moco::kernels().int16_attention;
    key_ = Scale(kernels.largest(key, ld_, tokens, d), limit_);
    uint32_t* key_words = words.of<uint32_t>(tokens * d / 2);
    kernels.halves_to_int16(key, ld_, key_.factor, tokens, d, key_words);
    moco::kernels().pack_keys(key_words, d / 2, tokens, d / 2, keys_);
    value_ = Scale(kernels.largest(value, ld_, tokens, d), limit_of_values(tokens));
    kernels.values_to_int16(value, ld_, value_.factor, tokens, d, values_);
    std::fill_n(values_ + weight_words(tokens) * d, kBlock, 0U);
  }

  // query: of the row's first token, at a head; received: (tokens) what queries give keys of attention is added to it,
  // null where nobody asks.
  void attend(float* query, Range queries, float* received) {
    for (int64_t q = queries.first; q < queries.last; q += kQueryTile) {
      attend_tile(query + q * ld_, {q, std::min(q + kQueryTile, queries.last)}, received);
    }
  }

 private:
  // Sums stay below 2^31: differences of two scores, each of d products less than 2^30 together; and the sums over a
  // block of keys of weights, up to 2^14, times values.
  static float limit_of_keys(int64_t d) {
    return std::ceil(std::sqrt(static_cast<float>(1 << 30) / static_cast<float>(d))) - 1;
  }
  static float limit_of_values(int64_t tokens) {
    return static_cast<float>(std::min<int64_t>(32767, ((1 << 17) - 1) / std::min(tokens, kKeyBlock)));
  }

  // Numbers times factor are whole numbers up to a limit; those times step are the numbers again. NaN where one of them
  // is not finite.
  struct Scale {
    Scale() = default;
    Scale(float largest, float limit)
        : factor(largest > limit * std::numeric_limits<float>::min() ? limit / largest : 0), step(largest / limit) {}
    float factor, step;
  };

  // Words of a query's weights for so many keys.
  static int64_t weight_words(int64_t keys) { return round_up(keys, 2 * kKeyStep) / 2; }

  void attend_tile(float* queries, Range tile, float* received) {
    const Int16Attention& kernels = moco::kernels().int16_attention;
    const Range keys = keys_of(range_, tile, tokens_);
    const int64_t count = tile.size();
    const int64_t half = d_ / 2;
    const Scale query(kernels.largest(queries, ld_, count, d_), limit_);
    kernels.halves_to_int16(queries, ld_, query.factor, count, d_, query_words_);
    for (int64_t k = keys.first; k < keys.last; k += kKeyBlock) {
      kernels.scores(count, std::min(kKeyBlock, round_up(keys.last - k, kKeyStep)), half, query_words_, half,
                     {keys_ + k * half, kKeyBlock, kBlock}, scores_ + k, ld_scores_);
    }
    constexpr float kLog2E = 1.44269504F;
    const float scale = query.step * key_.step * (4096 * kLog2E) / std::sqrt(static_cast<float>(d_));
    softmax(tile, keys, scale);
    const auto part_of = [&](int64_t k) { return parts_ + (k - keys.first) / kKeySpan; };
    if (received != nullptr) {
      for (int64_t k = keys.first; k < keys.last; k += kKeySpan) {
        kernels.add_received(weights_ + k / 2, ld_scores_, part_of(k), ld_parts_, count,
                             std::min(kKeySpan, keys.last - k), received + k);
      }
    }
    for (int64_t k = keys.first; k < keys.last; k += kKeyBlock) {
      kernels.context(count, d_, weight_words(std::min(kKeyBlock, keys.last - k)), weights_ + k / 2, ld_scores_,
                      {values_ + k / 2 * d_, d_, kBlock}, part_of(k), ld_parts_, context_, ld_context_, k > keys.first);
    }
    float steps[kQueryTile];
    std::fill_n(steps, count, value_.step + 0 * scale);
    hidden_kernels<float>().scale_rows(context_, ld_context_, steps, count, d_, queries, ld_);
  }

  // Of the keys of a tile, each query's own have weights.
  void softmax(Range tile, Range keys, float scale) {
    const Int16Attention& kernels = moco::kernels().int16_attention;
    int32_t* scores = scores_ + keys.first;
    uint32_t* weights = weights_ + keys.first / 2;
    if (range_.full()) {
      return kernels.softmax(scores, ld_scores_, scale, tile.size(), 0, tokens_, keys.size(), weights, ld_scores_,
                             parts_, ld_parts_, tops_);
    }
    for (int64_t q = 0; q < tile.size(); ++q) {
      const Range own = keys_of(range_, tile.first + q, tokens_);
      kernels.softmax(scores + q * ld_scores_, ld_scores_, scale, 1, own.first - keys.first, own.last - keys.first,
                      keys.size(), weights + q * ld_scores_, ld_scores_, parts_ + q * ld_parts_, ld_parts_, tops_);
    }
  }

  KeyRange range_;
  int64_t tokens_, ld_, d_, ld_scores_, ld_parts_, ld_context_;
  float limit_;  // of queries and keys
  Scale key_, value_;
  uint32_t *query_words_, *keys_, *values_, *weights_;
  int32_t *scores_, *tops_;
  float *parts_, *context_;
};

}  // namespace moco
