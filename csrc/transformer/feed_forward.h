// The second sub-layer: two products with an activation function between them, residual and LayerNorm.
#pragma once

#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/weights.h"

namespace moco {

class FeedForward {
 public:
  FeedForward(const LayerWeights& weights, Activation activation, double eps, at::ScalarType dtype);

  // hidden = LayerNorm(activation(hidden W_i^T + b_i) W_o^T + b_o + hidden). hidden: (tokens, D)
  template <typename T>
  void run(T* hidden, int64_t tokens) const;

 private:
  Activation activation_;
  Linear intermediate_, output_;
  LayerNorm norm_;
};

}  // namespace moco
