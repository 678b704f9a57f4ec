// The numeric forms of a linear layer's weights, each laid out as its products read them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "linear/weights.h"
#include "tensor/tensor.h"

namespace moco {

// Tokens as weights of a form read them: x (tokens, inputs) of the model's dtype, or the same, prepared.
struct Tokens {
  const void* x;
  int64_t ld;
  Quantized prepared;
};

class PackedWeights {
 public:
  virtual ~PackedWeights() = default;

  // How many inputs are summed in one go; those sums are then added up.
  int64_t depth() const { return depth_; }

  // The share of the weights that is multiplied, those counted that only fill up lists (see SparsePanel).
  virtual double density() const { return 1.0; }

  // What a token takes, in bytes, once it is prepared for these products; 0: they read tokens as they are.
  virtual int64_t prepared_bytes() const { return 0; }
  virtual void prepare(const float* /*x*/, int64_t /*ld*/, int64_t /*tokens*/, const Quantized& /*out*/) const {}
  virtual void prepare(const bfloat16* /*x*/, int64_t /*ld*/, int64_t /*tokens*/, const Quantized& /*out*/) const {}

  // c = x W^T for some columns (outputs) of one panel and the inputs [input, input + depth()), added to what c holds
  // where input is not 0. The first column is that of a panel; c: (tokens, columns), written over up to a whole
  // block.
  virtual void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t input, float* c,
                        int64_t ld_c) const = 0;

 protected:
  explicit PackedWeights(int64_t depth) : depth_(depth) {}

 private:
  int64_t depth_;
};

// weight: (outputs, inputs) of float32 or bfloat16; depth: of float32.
std::unique_ptr<PackedWeights> pack_dense(const Tensor& weight, int64_t depth);

// layers: of int8, with the same smooth, their outputs side by side; numbers: numbers_of(layers).
std::unique_ptr<PackedWeights> pack_int8(const std::vector<LinearWeights>& layers, const Tensor& numbers);

// The same without their zeros; null where there are too few of those for it to be faster, see sparse.cpp.
std::unique_ptr<PackedWeights> pack_sparse(const Tensor& weight, int64_t depth);
std::unique_ptr<PackedWeights> pack_sparse_int8(const std::vector<LinearWeights>& layers, const Tensor& numbers);

// Inputs of float32 that dense weights sum in one go, of `depth` that were asked for.
int64_t dense_depth(int64_t depth);

// (outputs, inputs), both filled up with zeros -> (blocks, words, kBlock, inputs of a word), with words for a multiple
// of `inputs_step` inputs.
Tensor in_blocks(const Tensor& weight, int64_t word, int64_t inputs_step);

}  // namespace moco
