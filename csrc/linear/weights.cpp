#include "linear/weights.h"

#include "core/checks.h"
#include "kernels/kernels.h"

namespace moco {

Tensor LinearWeights::unpacked() const {
  if (!quantized()) return weight;
  const Tensor all = weight.transposed(1, 2).contiguous().view({weight.size(0) * kBlock, weight.size(1) * kWordBytes});
  return all.narrow(0, 0, outputs()).narrow(1, 0, inputs());
}

Tensor LinearWeights::dense() const {
  if (!quantized()) return weight;
  const Tensor numbers = unpacked().contiguous();
  const Tensor scales = scale.to(DType::kFloat32);
  const Tensor smooths = smooth.to(DType::kFloat32);
  const Tensor out = Tensor::empty({outputs(), inputs()}, DType::kFloat32);
  for (int64_t i = 0; i < out.numel(); ++i) {
    const auto number = static_cast<float>(numbers.data<int8_t>()[i]);
    out.data<float>()[i] = number * scales.data<float>()[i / inputs()] / smooths.data<float>()[i % inputs()];
  }
  return out;
}

Tensor numbers_of(const std::vector<LinearWeights>& layers) {
  std::vector<Tensor> each;
  for (const LinearWeights& layer : layers) each.push_back(layer.unpacked());
  return Tensor::concatenated(each);
}

void check_affine(const Affine& affine, const std::vector<int64_t>& shape) {
  const auto& [weight, bias] = affine;
  MOCO_CHECK_SHAPE("Encoder", weight, shape);
  MOCO_CHECK_SHAPE("Encoder", bias, {shape[0]});
}

void check_linear(const LinearWeights& linear, int64_t outputs, int64_t inputs) {
  if (!linear.quantized()) return check_affine({linear.weight, linear.bias}, {outputs, inputs});
  MOCO_CHECK_SHAPE("Encoder", linear.bias, {outputs});
  MOCO_CHECK_DTYPE("Encoder", linear.weight, DType::kInt8);
  MOCO_CHECK_SHAPE(
      "Encoder", linear.weight,
      {round_up(outputs, kBlock) / kBlock, round_up(inputs, kInt8Inputs) / kWordBytes, kBlock, kWordBytes});
  MOCO_CHECK_SHAPE("Encoder", linear.scale, {outputs});
  MOCO_CHECK_SHAPE("Encoder", linear.smooth, {inputs});
}

void check_same_tokens(const LinearWeights& one, const LinearWeights& other) {
  MOCO_CHECK_VALUE(one.quantized() == other.quantized() && (!one.quantized() || equal(one.smooth, other.smooth)),
                   "TransformerClassifier: layers that read the same tokens must all be int8 with the same smooth, or "
                   "none of them");
}

}  // namespace moco
