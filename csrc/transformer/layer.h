// One layer of an encoder, over tokens and rows laid end to end: its two sub-layers, and the peek at the first.
#pragma once

#include <vector>

#include "transformer/feed_forward.h"
#include "transformer/peek.h"
#include "transformer/self_attention.h"
#include "transformer/weights.h"

namespace moco {

class Layer {
 public:
  Layer(const LayerWeights& weights, int64_t heads, Activation activation, double eps, at::ScalarType dtype);
  Layer(const Layer&) = delete;  // the peek refers to the attention beside it
  Layer& operator=(const Layer&) = delete;

  const SelfAttention& attention() const { return attention_; }
  const FeedForward& feed_forward() const { return feed_forward_; }
  const Peek& peek() const { return peek_; }

 private:
  SelfAttention attention_;
  FeedForward feed_forward_;
  Peek peek_;
};

}  // namespace moco
