// The classifier: what it reads of every row, a dense layer with an activation function, if any, the layer to the
// logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "batch/packed_batch.h"
#include "linear/linear.h"
#include "transformer/norm.h"
#include "transformer/spec.h"

namespace moco {

class Head {
 public:
  Head(const HeadSpec& spec, at::ScalarType dtype);

  int64_t inputs() const { return dense_ ? dense_->inputs() : output_.inputs(); }
  int64_t classes() const { return output_.outputs(); }
  Pooling pooling() const { return pooling_; }

  // Logits (rows, classes) in the model's dtype. Where the first token alone is read, the batch may have no other.
  template <typename T>
  at::Tensor run(const PackedBatch& batch) const;

 private:
  template <typename T>
  at::Tensor pooled(const PackedBatch& batch) const;

  Pooling pooling_;
  Activation activation_ = Activation::kNone;
  std::optional<Linear> dense_;
  Linear output_;
  std::optional<NormLayer> final_norm_, norm_;
};

}  // namespace moco
