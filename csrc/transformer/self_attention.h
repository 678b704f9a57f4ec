// The first sub-layer: self-attention, its output product, residual and norms.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/score_bias.h"
#include "transformer/spec.h"
#include "transformer/varlen_attention.h"

namespace moco {

class SelfAttention {
 public:
  SelfAttention(const AttentionSpec& spec, const SubLayerNorms& norms, at::ScalarType dtype);

  // The whole sub-layer, in place. hidden: (T, D); cu_seqlens: (rows + 1).
  template <typename T>
  void run(T* hidden, const std::vector<int32_t>& cu_seqlens) const;

  // Its end: hidden = after(output(context W_o^T + b_o) + hidden). context, hidden: (tokens, D)
  template <typename T>
  void project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const;

 private:
  // The same for some rows, cu_seqlens: (rows + 1), with hidden at the first of them.
  template <typename T>
  void run_rows(T* hidden, const int32_t* cu_seqlens, int64_t rows) const;

  // Their queries, keys and values: (tokens, width), see HeadLayout.
  template <typename T>
  void project(const T* hidden, int64_t tokens, T* qkv) const;

  // Normalises queries and keys, and turns them by their positions.
  template <typename T>
  void prepare(T* qkv, const int32_t* cu_seqlens, int64_t rows) const;

  // softmax((q k^T + bias) / sqrt(d)) v of each row and head; see varlen_attention.
  template <typename T>
  void attend(T* qkv, const int32_t* cu_seqlens, int64_t rows) const;

  const Linear& query_key_value() const;

  LinearWeights query_, key_, value_;
  HeadLayout layout_;
  int64_t D_;
  at::ScalarType dtype_;
  KeyRange keys_;
  std::optional<NormLayer> query_norm_, key_norm_;
  std::optional<Rope> rope_;
  PackedBias bias_;
  bool int16_;  // how scores are computed
  Linear output_;
  NormLayers norms_;

  // Packed when it is first asked for: the last layer is often only peeked at.
  mutable std::once_flag query_key_value_once_;
  mutable std::unique_ptr<Linear> query_key_value_;
};

}  // namespace moco
