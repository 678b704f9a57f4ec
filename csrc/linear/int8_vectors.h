// What goes with products of int8 weights, beside the weights.
#pragma once

#include <vector>

#include "linear/weights.h"

namespace moco {

// Of layers with the same smooth, their outputs side by side. All float32.
struct Int8Vectors {
  // numbers: (outputs, inputs), their weights.
  Int8Vectors(const std::vector<LinearWeights>& layers, const Tensor& numbers);

  Tensor factor;       // (inputs): 1 / smooth
  Tensor scale, sums;  // (outputs in whole blocks): see multiply_int8
};

}  // namespace moco
