// One layer of an encoder, over tokens and rows laid end to end: its two sub-layers, and the peek at the first.
#pragma once

#include <optional>

#include "transformer/feed_forward.h"
#include "transformer/peek.h"
#include "transformer/self_attention.h"
#include "transformer/spec.h"

namespace moco {

class Layer {
 public:
  Layer(const LayerSpec& spec, DType dtype);
  Layer(const Layer&) = delete;  // the peek refers to the attention beside it
  Layer& operator=(const Layer&) = delete;

  const SelfAttention& attention() const { return attention_; }
  const FeedForward& feed_forward() const { return feed_forward_; }
  // Null where a peek needs keys and values.
  const Peek* peek() const { return peek_ ? &*peek_ : nullptr; }

 private:
  SelfAttention attention_;
  FeedForward feed_forward_;
  std::optional<Peek> peek_;
};

}  // namespace moco
