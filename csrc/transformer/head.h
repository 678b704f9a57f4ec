// The classifier on every row's first token: a dense layer, an activation function, the layer to the logits.
#pragma once

#include <ATen/core/Tensor.h>

#include "linear/linear.h"
#include "transformer/weights.h"

namespace moco {

class Head {
 public:
  Head(const HeadWeights& weights, at::ScalarType dtype);

  int64_t inputs() const { return dense_.inputs(); }
  int64_t classes() const { return output_.outputs(); }

  // cls: (rows, inputs) -> logits (rows, classes), both of the model's dtype.
  template <typename T>
  at::Tensor run(const at::Tensor& cls) const;

 private:
  Activation activation_;
  Linear dense_, output_;
};

}  // namespace moco
