#include "linear/weights.h"

#include <ATen/ops/equal.h>

#include "core/checks.h"
#include "kernels/kernels.h"

namespace moco {

at::Tensor LinearWeights::unpacked() const {
  if (!quantized()) return weight;
  const at::Tensor all = weight.transpose(1, 2).reshape({weight.size(0) * kBlock, weight.size(1) * kWordBytes});
  return all.narrow(0, 0, outputs()).narrow(1, 0, inputs());
}

at::Tensor LinearWeights::dense() const {
  return quantized() ? unpacked().mul(scale.unsqueeze(1)).div(smooth) : weight;
}

void check_affine(const Affine& affine, const std::vector<int64_t>& shape) {
  const auto& [weight, bias] = affine;
  MOCO_CHECK_SHAPE("Encoder", weight, shape);
  MOCO_CHECK_SHAPE("Encoder", bias, {shape[0]});
}

void check_linear(const LinearWeights& linear, int64_t outputs, int64_t inputs) {
  if (!linear.quantized()) return check_affine({linear.weight, linear.bias}, {outputs, inputs});
  MOCO_CHECK_SHAPE("Encoder", linear.bias, {outputs});
  MOCO_CHECK_DTYPE("Encoder", linear.weight, at::kChar);
  MOCO_CHECK_SHAPE(
      "Encoder", linear.weight,
      {round_up(outputs, kBlock) / kBlock, round_up(inputs, kInt8Inputs) / kWordBytes, kBlock, kWordBytes});
  MOCO_CHECK_SHAPE("Encoder", linear.scale, {outputs});
  MOCO_CHECK_SHAPE("Encoder", linear.smooth, {inputs});
}

void check_same_tokens(const LinearWeights& one, const LinearWeights& other) {
  MOCO_CHECK_VALUE(one.quantized() == other.quantized() && (!one.quantized() || at::equal(one.smooth, other.smooth)),
                   "TransformerClassifier: layers that read the same tokens must all be int8 with the same smooth, or "
                   "none of them");
}

}  // namespace moco
