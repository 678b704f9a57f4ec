// The second sub-layer: products with an activation function between them, residual and norms.
#pragma once

#include <optional>

#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/spec.h"

namespace moco {

class FeedForward {
 public:
  FeedForward(const FeedForwardSpec& spec, const SubLayerNorms& norms, DType dtype);

  // hidden = after(hidden + output(down(activation(up(before(hidden)))))), or with gate, see FeedForwardSpec.
  // hidden: (tokens, D)
  template <typename T>
  void run(T* hidden, int64_t tokens) const;

  const Linear& up() const { return up_; }
  const Linear& down() const { return down_; }

 private:
  Activation activation_;
  Linear up_, down_;
  std::optional<Linear> gate_;
  NormLayers norms_;
};

}  // namespace moco
