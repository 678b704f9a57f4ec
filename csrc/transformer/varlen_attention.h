// Attention of packed rows: every token attends to the tokens of its own row.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "batch/packed_batch.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "transformer/score_bias.h"
#include "transformer/spec.h"

namespace moco {

constexpr int64_t kQueryTile = 64;  // queries at a time: their scores against all keys stay in the cache

// The keys that a query of a row attends to, and those that any query of a tile does, the latter from a block's first.
inline Range keys_of(const KeyRange& keys, int64_t query, int64_t tokens) {
  return {keys.before == KeyRange::kAll ? 0 : std::max<int64_t>(0, query - keys.before),
          keys.behind == KeyRange::kAll ? tokens : std::min(tokens, query + keys.behind + 1)};
}
inline Range keys_of(const KeyRange& keys, Range queries, int64_t tokens) {
  return {keys_of(keys, queries.first, tokens).first / kKeyBlock * kKeyBlock,
          keys_of(keys, queries.last - 1, tokens).last};
}

// Which tokens of a row attend to others: all, or the one that stands for it.
struct QueryRange {
  std::optional<PooledToken> pooled;

  Range of(int64_t tokens) const {
    if (!pooled) return {0, tokens};
    const int64_t place = *pooled == PooledToken::kFirst ? 0 : tokens - 1;
    return {place, place + 1};
  }
};

// How a token's values lie: queries (heads, d), keys (kv_heads, d), values (kv_heads, d).
struct HeadLayout {
  int64_t heads, kv_heads, d;

  int64_t queries() const { return heads * d; }
  int64_t width() const { return (heads + 2 * kv_heads) * d; }
};

// softmax((q k^T + bias) / sqrt(d)) v for every row and head.
//   qkv: (T, width), projected; a head's context takes the place of the queries that attend. cu_seqlens: (rows + 1),
//   relative to its own first value. received: (T), what each token receives of attention from the queries that attend,
//   summed over heads; null where nobody asks.
template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout, const KeyRange& keys,
                      const QueryRange& queries, const PackedBias& bias, float* received = nullptr);

// The same without bias and with queries, keys, values and weights rounded to int16, much finer than int8's tokens: for
// models in int8. d is even.
void varlen_attention_int16(float* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout,
                            const KeyRange& keys, const QueryRange& queries, float* received = nullptr);

}  // namespace moco
