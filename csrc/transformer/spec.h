// A classifier as Python describes it: the weights, in PyTorch's layouts, and what differs from one family to the next.
// What a family does not have is absent, and costs nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/checks.h"
#include "linear/weights.h"
#include "tensor/tensor.h"

namespace moco {

// LayerNorm, or RMSNorm, which subtracts no mean.
struct NormSpec {
  Affine weights;  // (size) each
  double eps;
  bool rms;
};

// Rotary positions: of the first dims of every query and key, pairs (i, dims / 2 + i) are turned.
struct Rope {
  Tensor cos, sin;  // (positions, dims / 2) float32
};

// Which keys a query attends to: so many before its own token and behind it, or all.
struct KeyRange {
  static constexpr int64_t kAll = -1;
  static constexpr int64_t kMost = int64_t{1} << 31;  // longer than any row: sums with it do not overflow
  int64_t before = kAll, behind = kAll;

  KeyRange() = default;
  KeyRange(int64_t before, int64_t behind) : before(std::min(before, kMost)), behind(std::min(behind, kMost)) {
    MOCO_CHECK_VALUE(before >= kAll && behind >= kAll, "attention: before and behind must be at least -1 (got ", before,
                     " and ", behind, ")");
  }

  bool full() const { return before == kAll && behind == kAll; }
  // The same range in a row of so many tokens: all where it reaches to the end.
  KeyRange in_row(int64_t tokens) const {
    const auto in_row = [tokens](int64_t reach) { return reach >= tokens - 1 ? kAll : reach; };
    return {in_row(before), in_row(behind)};
  }
};

// Numbers that are added to scores after they are scaled, by the distance between two tokens.
struct DistanceBias {
  Tensor values;  // (heads, 2 * positions - 1) float32, of key - query from -(positions - 1) on
};

// Products that are added to scores before they are scaled, by the root of a head's size times the number of products,
// q . k included: of a query with the key of a distance, of a key with the query of a distance. Distances share them in
// buckets.
struct DisentangledBias {
  Tensor buckets;                       // (2 * positions - 1) int64, of query - key from -(positions - 1) on
  std::optional<Tensor> keys, queries;  // (any, D), projected; one of them at least
};

using ScoreBias = std::variant<std::monostate, DistanceBias, DisentangledBias>;

// Queries of heads x d values a token; keys and values of kv_heads x d, each for heads / kv_heads of the queries'
// heads.
struct AttentionSpec {
  LinearWeights query, key, value, output;
  int64_t heads, kv_heads;
  KeyRange keys;
  std::optional<NormSpec> query_norm, key_norm;  // (d), of every head, before it is turned
  std::optional<Rope> rope;
  ScoreBias bias;
  double keep = 1;  // the share of a row's tokens, as many as it began with, that go on behind it
};

// down(activation(up(x))), or down(activation(gate(x)) * up(x)).
struct FeedForwardSpec {
  LinearWeights up, down;
  std::optional<LinearWeights> gate;
  std::string activation;
};

// hidden = after(hidden + output(sub-layer(before(hidden)))), each where there is one
struct SubLayerNorms {
  std::optional<NormSpec> before, output, after;
};

struct LayerSpec {
  AttentionSpec attention;
  SubLayerNorms around_attention;
  FeedForwardSpec feed_forward;
  SubLayerNorms around_feed_forward;
};

struct EmbeddingSpec {
  Tensor words;                            // (any, E)
  std::optional<Tensor> positions, types;  // (any, E)
  double scale;                            // of words
  std::optional<NormSpec> norm;
  std::optional<Affine> projection;    // E -> D
  std::optional<int64_t> padding_idx;  // where given, positions count from padding_idx + 1 and skip that token
};

// An image in patches: each is a token, and others stand before them.
struct PatchEmbeddingSpec {
  Affine projection;                // (D, channels * height * width of a patch)
  Tensor first_tokens;              // (k, D)
  Tensor positions;                 // (k + patches, D)
  std::vector<int64_t> image_size;  // channels, height, width
  std::vector<int64_t> patch_size;  // height, width
};

// What is classified of a row: the state of one token, the batch's PooledToken, the mean of all, or the mean of what
// the dense layer and its activation make of each.
enum class Pooling { kToken, kMean, kDenseMean };

// output(norm(activation(dense(pooled)))), each where there is one: an encoder alone has none. With kDenseMean
// output(norm(mean(activation(dense(tokens))))).
struct HeadSpec {
  std::optional<NormSpec> final_norm;  // of tokens, before they are pooled
  std::string pooling;
  std::optional<Affine> dense;
  std::string activation;  // behind a dense layer
  std::optional<NormSpec> norm;
  std::optional<Affine> output;
};

}  // namespace moco
