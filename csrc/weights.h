// The weights of an encoder with its classifier, in PyTorch's layouts: a linear layer's is (outputs, inputs). Int8
// ones are packed.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "checks.h"
#include "gemm.h"

namespace moco {

// weight and bias of a linear layer or a LayerNorm
using Affine = std::pair<at::Tensor, at::Tensor>;

inline void check_affine(const Affine& affine, const std::vector<int64_t>& shape) {
  const auto& [weight, bias] = affine;
  MOCO_CHECK_SHAPE("Encoder", weight, shape);
  MOCO_CHECK_SHAPE("Encoder", bias, {shape[0]});
}

inline void check_linear(const LinearWeights& linear, int64_t outputs, int64_t inputs) {
  if (!linear.quantized()) return check_affine({linear.weight, linear.bias}, {outputs, inputs});
  MOCO_CHECK_SHAPE("Encoder", linear.bias, {outputs});
  MOCO_CHECK_DTYPE("Encoder", linear.weight, at::kChar);
  MOCO_CHECK_SHAPE("Encoder", linear.weight,
                   {round_up(outputs, Linear::kPanel) / Linear::kPanel, round_up(inputs, Linear::kWord) / Linear::kWord,
                    Linear::kPanel, Linear::kWord});
  MOCO_CHECK_SHAPE("Encoder", linear.scale, {outputs});
  MOCO_CHECK_SHAPE("Encoder", linear.smooth, {inputs});
  MOCO_CHECK_VALUE(can_multiply(at::kChar),
                   "Encoder: int8 weights need a processor that sums products of bytes (AVX-512 VNNI)");
}

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
