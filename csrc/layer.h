// One layer of an encoder, over tokens and rows laid end to end.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <vector>

#include "gemm.h"
#include "weights.h"

namespace moco {

// LayerNorm's parameters as the kernels want them.
class LayerNorm {
 public:
  LayerNorm(const Affine& weights, double eps);
  Norm get() const { return {weight_.const_data_ptr<float>(), bias_.const_data_ptr<float>(), eps_}; }

 private:
  at::Tensor weight_, bias_;  // float32
  float eps_;
};

class Layer {
 public:
  Layer(LayerWeights weights, int64_t heads, Activation activation, double eps, at::ScalarType dtype);

  // The sub-layers, in place. hidden: (T, D); cu_seqlens: (rows + 1).
  template <typename T>
  void attention(T* hidden, const std::vector<int32_t>& cu_seqlens) const;
  template <typename T>
  void feed_forward(T* hidden, int64_t tokens) const;

  // Only the first token's new state, for every row: what `attention` would leave there. cls: (rows, D), holds those
  // tokens of hidden.
  //
  // Of the other tokens it needs no key and no value: with q the token's query of head h,
  //   score[t] = q . (W_k x[t] + b_k) = (W_k^T q) . x[t] + constant, and softmax takes no notice of the constant;
  //   context = sum_t p[t] (W_v x[t] + b_v) = W_v (sum_t p[t] x[t]) + b_v.
  // Where those weights are int8 it multiplies with the same numbers, but does not quantise what they multiply.
  template <typename T>
  void peek(const T* hidden, const std::vector<int32_t>& cu_seqlens, T* cls) const;

 private:
  // What only `attention` needs and what only `peek` needs is packed when first asked for: most layers are only run,
  // the last one is only peeked.
  struct Peek {
    std::unique_ptr<Linear> query;
    std::vector<Linear> key, value;  // by head; key: W_k^T
  };
  const Linear& query_key_value() const;
  const Peek& peek_weights() const;
  Linear linear(const LinearWeights& weights) const { return {weights, dtype_}; }

  template <typename T>
  void peek_rows(const T* hidden, const int32_t* cu_seqlens, int64_t rows, T* cls) const;
  template <typename T>
  void project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const;

  LayerWeights weights_;
  int64_t heads_, D_;
  Activation activation_;
  at::ScalarType dtype_;
  Linear attention_output_, intermediate_, output_;
  LayerNorm attention_norm_, output_norm_;

  mutable std::once_flag query_key_value_once_, peek_once_;
  mutable std::unique_ptr<Linear> query_key_value_;
  mutable Peek peek_;
};

}  // namespace moco
