#include "linear/weights.h"

#include <algorithm>

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

namespace {

// Int8 weights as kernels trust them to be, whatever file they came from: see kMaxInt8Sum and kInt8Inputs.
void check_int8(const Tensor& weight, int64_t inputs) {
  const Tensor packed = weight.contiguous();
  constexpr int64_t kWord = kBlock * kWordBytes;  // four inputs of a block of outputs
  const int64_t of_block = packed.size(1) / 2;    // groups of eight inputs, two words
  const auto* group = packed.data<int8_t>();
  int32_t most = 0, behind = 0;
  for (int64_t g = 0; g < packed.size(0) * of_block; ++g, group += 2 * kWord) {
    // Inputs 0 and 1 of an output stand side by side, and 4 and 5 a word behind them.
    for (int64_t i = 0; i < kWord; i += 2) {
      const int32_t four[] = {group[i], group[i + 1], group[kWord + i], group[kWord + i + 1]};
      int32_t above = 0, below = 0;
      for (const int32_t number : four) {
        above += std::max(number, 0);
        below -= std::min(number, 0);
      }
      most = std::max(most, std::max(above, below));
    }
    if (g % of_block < of_block - 1) continue;
    for (int64_t input = inputs - (of_block - 1) * kInt8Inputs; input < kInt8Inputs; ++input) {
      const int8_t* const word = group + input / kWordBytes * kWord + input % kWordBytes;
      for (int64_t output = 0; output < kBlock; ++output) behind |= word[output * kWordBytes];
    }
  }
  MOCO_CHECK_VALUE(most <= kMaxInt8Sum && behind == 0,
                   "Encoder: int8 weights must be as Int8Linear packs them, of every four that are summed in 16 bits "
                   "at most ",
                   kMaxInt8Sum, " together, and zeros behind the last input (got others)");
}

}  // namespace

void check_affine(const Affine& affine, const std::vector<int64_t>& shape) {
  const auto& [weight, bias] = affine;
  MOCO_CHECK_SHAPE("Encoder", weight, shape);
  MOCO_CHECK_SHAPE("Encoder", bias, {shape[0]});
}

void check_linear(const LinearWeights& linear, int64_t outputs, int64_t inputs) {
  MOCO_CHECK_VALUE(outputs > 0 && inputs > 0, "Encoder: a layer must have outputs and inputs (got ", outputs, " and ",
                   inputs, ")");
  if (!linear.quantized()) return check_affine({linear.weight, linear.bias}, {outputs, inputs});
  MOCO_CHECK_SHAPE("Encoder", linear.bias, {outputs});
  MOCO_CHECK_DTYPE("Encoder", linear.weight, DType::kInt8);
  MOCO_CHECK_SHAPE(
      "Encoder", linear.weight,
      {round_up(outputs, kBlock) / kBlock, round_up(inputs, kInt8Inputs) / kWordBytes, kBlock, kWordBytes});
  MOCO_CHECK_SHAPE("Encoder", linear.scale, {outputs});
  MOCO_CHECK_SHAPE("Encoder", linear.smooth, {inputs});
  check_int8(linear.weight, inputs);
}

void check_same_tokens(const LinearWeights& one, const LinearWeights& other) {
  MOCO_CHECK_VALUE(one.quantized() == other.quantized() && (!one.quantized() || equal(one.smooth, other.smooth)),
                   "TransformerClassifier: layers that read the same tokens must all be int8 with the same smooth, or "
                   "none of them");
}

}  // namespace moco
