// The classifier: what it reads of every row, a dense layer with an activation function where there is one, the layer
// to the logits.
#pragma once

#include <optional>

#include "batch/packed_batch.h"
#include "linear/linear.h"
#include "tensor/tensor.h"
#include "transformer/norm.h"
#include "transformer/spec.h"

namespace moco {

class Head {
 public:
  // D: the size of the hidden states.
  Head(const HeadSpec& spec, int64_t D, DType dtype);

  int64_t classes() const { return output_ ? output_->outputs() : 0; }
  Pooling pooling() const { return pooling_; }

  // The final norm of all tokens, in place, where there is one.
  template <typename T>
  void normalize(const Tensor& hidden) const;

  // Logits (rows, classes) in the model's dtype. Where one token alone is read, the batch may have no other.
  template <typename T>
  Tensor run(const PackedBatch& batch) const;

 private:
  // The tokens that are read, behind the final norm: (tokens, D).
  template <typename T>
  Tensor read(const PackedBatch& batch) const;

  Pooling pooling_;
  Activation activation_;
  std::optional<Linear> dense_, output_;
  std::optional<NormLayer> final_norm_, norm_;
};

}  // namespace moco
