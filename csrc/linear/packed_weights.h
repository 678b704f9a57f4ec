// The numeric forms of a linear layer's weights, each laid out as its products read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "linear/weights.h"

namespace moco {

// Tokens as weights of a form read them: x (tokens, inputs) of the model's dtype, or the same, quantised.
struct Tokens {
  const void* x;
  int64_t ld;
  Quantized quantized;
};

class PackedWeights {
 public:
  virtual ~PackedWeights() = default;

  // How many inputs are summed in one go; those sums are then added up.
  int64_t depth() const { return depth_; }

  // What inputs are multiplied by before they are quantised: (inputs); null where tokens are multiplied as they are.
  virtual const float* quantize_factor() const { return nullptr; }

  // c = x W^T for some columns (outputs) of one panel and the inputs [input, input + depth()), added to what c holds
  // where input is not 0. The first column is a multiple of kBlock; c: (tokens, columns), written over up to a whole
  // block.
  virtual void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t input, float* c,
                        int64_t ld_c) const = 0;

 protected:
  explicit PackedWeights(int64_t depth) : depth_(depth) {}

 private:
  int64_t depth_;
};

// weight: (outputs, inputs); dtype: float32 or bfloat16; depth: of float32.
std::unique_ptr<PackedWeights> pack_dense(const at::Tensor& weight, at::ScalarType dtype, int64_t depth);

// layers: of int8, with the same smooth, their outputs side by side.
std::unique_ptr<PackedWeights> pack_int8(const std::vector<LinearWeights>& layers);

// (outputs, inputs), both filled up with zeros -> (blocks, words, kBlock, inputs of a word), with words for a multiple
// of `inputs_step` inputs.
at::Tensor in_blocks(const at::Tensor& weight, int64_t word, int64_t inputs_step);

}  // namespace moco
