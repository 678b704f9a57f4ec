// The first sub-layer: self-attention, its output product, residual and norms.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/score_bias.h"
#include "transformer/spec.h"
#include "transformer/varlen_attention.h"

namespace moco {

class SelfAttention {
 public:
  SelfAttention(const AttentionSpec& spec, const SubLayerNorms& norms, DType dtype);

  // The whole sub-layer, in place. hidden: (T, D); cu_seqlens: (rows + 1); received: see varlen_attention.
  template <typename T>
  void run(T* hidden, const std::vector<int32_t>& cu_seqlens, float* received = nullptr) const;

  // The same for the token alone that stands for each row; the others only have keys and values.
  // cls: (rows, D), these tokens of hidden; what the sub-layer makes of them takes their place. hidden: (T, D)
  template <typename T>
  void run_pooled(const T* hidden, const std::vector<int32_t>& cu_seqlens, PooledToken pooled, T* cls) const;

  // Its end: hidden = after(output(context W_o^T + b_o) + hidden). context, hidden: (tokens, D)
  template <typename T>
  void project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const;

  const NormLayers& norms() const { return norms_; }
  // The share of the weights of queries, keys and values that is multiplied; 1 before all three were asked for at once.
  double input_density() const { return query_key_value_.density(); }
  const Linear& output() const { return output_; }
  // The share of a row's tokens, as many as it began with, that go on after this sub-layer.
  double keep() const { return keep_; }
  const PackedBias& bias() const { return bias_; }

 private:
  // The same for some rows, cu_seqlens: (rows + 1), with hidden at the first of them.
  template <typename T>
  void run_rows(T* hidden, const int32_t* cu_seqlens, int64_t rows, float* received) const;

  // out = before(hidden) weight^T + bias. hidden: (tokens, D)
  template <typename T>
  void project(const Linear& linear, const T* hidden, int64_t tokens, T* out, int64_t ld_out) const;

  // Normalises keys, and the queries that attend, and turns them by their positions. qkv: see HeadLayout.
  template <typename T>
  void prepare(T* qkv, const int32_t* cu_seqlens, int64_t rows, const QueryRange& queries) const;

  // Of one row, `heads` of some tokens. x: of the row's first token, at the first of these heads
  template <typename T>
  void prepare_heads(T* x, Range tokens, int64_t heads, const std::optional<NormLayer>& norm) const;

  // softmax((q k^T + bias) / sqrt(d)) v of each row and head; see varlen_attention.
  template <typename T>
  void attend(T* qkv, const int32_t* cu_seqlens, int64_t rows, const QueryRange& queries,
              float* received = nullptr) const;

  // Weights that are packed when they are first asked for: the last layer is often run for pooled tokens only.
  class LazyLinear {
   public:
    LazyLinear(std::vector<LinearWeights> layers, DType dtype) : layers_(std::move(layers)), dtype_(dtype) {}
    const Linear& get() const {
      std::call_once(once_,
                     [&] { linear_ = std::make_unique<Linear>(layers_, dtype_, LinearOptions{.skip_zeros = true}); });
      return *linear_;
    }
    double density() const { return linear_ == nullptr ? 1.0 : linear_->density(); }

   private:
    std::vector<LinearWeights> layers_;
    DType dtype_;
    mutable std::once_flag once_;
    mutable std::unique_ptr<Linear> linear_;
  };

  LazyLinear query_key_value_, query_, key_value_;
  HeadLayout layout_;
  int64_t D_;
  KeyRange keys_;
  std::optional<NormLayer> query_norm_, key_norm_;
  std::optional<Rope> rope_;
  PackedBias bias_;
  double keep_;
  bool int16_;  // how scores are computed
  Linear output_;
  NormLayers norms_;
};

}  // namespace moco
