// A peek: the state that attention would leave in the first token of every row, without a key or a value of the other
// tokens. Exits that read only that token are decided by it before the layer is run for all the others.
//
// With q the first token's query of head h, and x[t] the tokens,
//   score[t] = q . (W_k x[t] + b_k) = (W_k^T q) . x[t] + constant, and softmax takes no notice of the constant;
//   context = sum_t p[t] (W_v x[t] + b_v) = W_v (sum_t p[t] x[t]) + b_v.
//
// This holds only where a key is a linear function of its token alone: not with rotary positions, nor with a norm of
// keys, nor where a score depends on a key and a distance. SelfAttention::run_pooled does without this, for the price
// of keys and values. In a layer that normalises before attention, x[t] is the normalised token.
// Where the weights are int8, a peek multiplies with the same numbers but does not quantise its inputs.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "linear/linear.h"
#include "transformer/self_attention.h"
#include "transformer/spec.h"

namespace moco {

class Peek {
 public:
  // Whether keys are a linear function of what attention reads, and the first token attends to all of them.
  static bool can(const LayerSpec& spec);

  // attention: the sub-layer that is peeked at, whose norms and bias these are; it must outlive this.
  Peek(const AttentionSpec& spec, const SelfAttention& attention, DType dtype);

  // cls: (rows, D), the first tokens of hidden; what `attention` would make of them takes their place.
  // hidden: (T, D); cu_seqlens: (rows + 1).
  template <typename T>
  void run(const T* hidden, const std::vector<int32_t>& cu_seqlens, T* cls) const;

 private:
  struct Packed {
    std::unique_ptr<Linear> query;
    std::vector<Linear> key, value;  // by head; key: W_k^T
  };
  const Packed& packed() const;

  template <typename T>
  void run_rows(const T* hidden, const int32_t* cu_seqlens, int64_t rows, T* cls) const;

  LinearWeights query_, key_, value_;
  const SelfAttention& attention_;
  int64_t heads_, d_, D_;
  DType dtype_;

  // Packed when it is first asked for: most layers are only run.
  mutable std::once_flag once_;
  mutable Packed packed_;
};

}  // namespace moco
