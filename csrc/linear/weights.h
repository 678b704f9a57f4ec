// The weights of a linear layer as a model has them, and whether they fit.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tensor/tensor.h"

namespace moco {

// Weight and bias of a linear layer or of a LayerNorm.
using Affine = std::pair<Tensor, Tensor>;

// Float weights, or int8 ones: W[n][k] = scale[n] * weight[n][k] / smooth[k], with inputs that are quantised token by
// token (see Quantized).
struct LinearWeights {
  // weight: (outputs, inputs), of int8 in the panels that Linear reads; bias: (outputs), undefined where there is none.
  Tensor weight, bias;
  Tensor scale = {}, smooth = {};  // (outputs), (inputs) float32; undefined where weight is not int8

  bool quantized() const { return scale.defined(); }
  int64_t outputs() const { return quantized() ? scale.size(0) : weight.size(0); }
  int64_t inputs() const { return quantized() ? smooth.size(0) : weight.size(1); }
  // The numbers of `weight` as (outputs, inputs), int8 ones still without scale and smooth.
  Tensor unpacked() const;
  // W: (outputs, inputs) in float.
  Tensor dense() const;
};

// The numbers of int8 layers, their outputs side by side: (outputs, inputs), contiguous.
Tensor numbers_of(const std::vector<LinearWeights>& layers);

// Refuse a weight that has another shape than (outputs, inputs), a bias that has another than (outputs), and int8
// weights that cannot be multiplied here. `shape` is that of the weight.
void check_affine(const Affine& affine, const std::vector<int64_t>& shape);
void check_linear(const LinearWeights& linear, int64_t outputs, int64_t inputs);
// Refuse layers of which one is int8 and the other not, or that divide the same tokens by another smooth.
void check_same_tokens(const LinearWeights& one, const LinearWeights& other);

}  // namespace moco
