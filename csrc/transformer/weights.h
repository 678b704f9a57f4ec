// The weights of a classifier as Python hands them over, in PyTorch's layouts: a linear layer's are (outputs, inputs),
// int8 ones in the panels that Linear reads.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "linear/weights.h"

namespace moco {

struct EmbeddingWeights {
  at::Tensor words, positions;      // (any, E)
  std::optional<at::Tensor> types;  // (any, E)
  Affine norm;
  std::optional<Affine> projection;    // E -> D
  std::optional<int64_t> padding_idx;  // where given, positions count from padding_idx + 1 and skip that token
};

struct LayerWeights {
  LinearWeights query, key, value, attention_output;
  Affine attention_norm;
  LinearWeights intermediate, output;
  Affine output_norm;
};

struct HeadWeights {
  Affine dense;
  std::string activation;
  Affine output;
};

}  // namespace moco
