// The weights of an encoder with its classifier, in PyTorch's layouts: a linear layer's is (outputs, inputs).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <utility>

namespace moco {

// weight and bias of a linear layer or a LayerNorm
using Affine = std::pair<at::Tensor, at::Tensor>;

struct EmbeddingWeights {
  at::Tensor words, positions;      // (any, E)
  std::optional<at::Tensor> types;  // (any, E)
  Affine norm;
  std::optional<Affine> projection;    // E -> D
  std::optional<int64_t> padding_idx;  // where given, positions count from padding_idx + 1 and skip that token
};

struct LayerWeights {
  Affine query, key, value, attention_output, attention_norm, intermediate, output, output_norm;
};

struct HeadWeights {
  Affine dense;
  std::string activation;
  Affine output;
};

}  // namespace moco
