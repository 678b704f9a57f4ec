#include "linear/linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "core/checks.h"
#include "core/isa.h"
#include "core/profile.h"
#include "linear/brgemm.h"

namespace moco {

// The layout that products read: (outputs, inputs), both filled up with zeros -> (panels, inputs / word, kPanel, word).
static at::Tensor pack(const at::Tensor& weight, int64_t word) {
  const int64_t outputs = round_up(weight.size(0), Linear::kPanel);
  const int64_t inputs = round_up(weight.size(1), word);
  return at::constant_pad_nd(weight, {0, inputs - weight.size(1), 0, outputs - weight.size(0)})
      .view({outputs / Linear::kPanel, Linear::kPanel, inputs / word, word})
      .transpose(1, 2)
      .contiguous();
}

Linear::Linear(const std::vector<LinearWeights>& layers, at::ScalarType dtype, int64_t depth)
    : inputs_(layers[0].inputs()), outputs_(0), depth_(dtype == at::kFloat ? depth : kDepthBFloat16) {
  bool panels_align = true;  // no panel would hold outputs of two layers
  for (const LinearWeights& layer : layers) {
    panels_align = panels_align && outputs_ % kPanel == 0;
    outputs_ += layer.outputs();
  }
  const auto concatenated = [&](const auto& of) {
    std::vector<at::Tensor> each;
    for (const LinearWeights& layer : layers) each.push_back(of(layer).detach());
    return each.size() == 1 ? each[0] : at::cat(each);
  };
  const bool int8 = layers[0].quantized();
  if (int8 && panels_align) {
    for (const LinearWeights& layer : layers) packed_.push_back(layer.weight.contiguous());
  } else {
    MOCO_CHECK_VALUE(int8 || dtype == at::kFloat || inputs_ % 2 == 0,
                     "Linear: inputs must be even in torch.bfloat16 (got ", inputs_, ")");
    const at::Tensor weight = concatenated([](const LinearWeights& layer) { return layer.unpacked(); });
    packed_.push_back(int8 ? pack(weight, kWord) : pack(weight.to(dtype), dtype == at::kFloat ? 1 : 2));
  }
  for (const at::Tensor& packed : packed_) {
    for (int64_t p = 0; p < packed.size(0); ++p) panels_.push_back(packed.select(0, p).const_data_ptr());
  }
  const auto floats = [](const at::Tensor& values) { return values.to(at::kFloat).contiguous(); };
  bias_ = layers[0].bias.defined() ? floats(concatenated([](const LinearWeights& layer) { return layer.bias; }))
                                   : at::zeros({outputs_});
  if (!int8) return;
  factor_ = floats(layers[0].smooth.detach().reciprocal());
  scale_ = floats(concatenated([](const LinearWeights& layer) { return layer.scale; }));
  sums_ = floats(concatenated([](const LinearWeights& layer) {
    return layer.weight.sum({1, 3}).flatten().narrow(0, 0, layer.outputs()).mul(layer.scale);
  }));
}

template <typename T>
void Linear::tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const {
  moco::multiply(tokens, width(p), std::min(depth_, inputs_ - input), x + input, ld_x, panel<T>(p) + input * kPanel,
                 kPanel, c, ld_c, input > 0);
}

template <typename T>
void Linear::quantize(const Operand<T>& x, int64_t tokens, Range tiles) const {
  if (!quantized()) return;
  const Timed timed(ProfileSection::kQuantize);
  const int64_t first = tiles.first * kTile;
  const int64_t last = std::min(tokens, tiles.last * kTile);
  hidden_kernels<T>().quantize(x.x + first * x.ld, x.ld, factor_.const_data_ptr<float>(), last - first, inputs_,
                               x.quantized.from(first));
}

Accumulator<int32_t> Linear::int8_tile(const Quantized& x, int64_t tokens, int64_t p, int32_t* c) const {
  moco::multiply(tokens, width(p), quantized_inputs(), x.values, x.ld, panel<int8_t>(p), kPanel, c, kPanel, false);
  return {c, kPanel, x, scale_.const_data_ptr<float>() + p * kPanel, sums_.const_data_ptr<float>() + p * kPanel};
}

// The loop over weights is the outer one, that over tokens the inner one: a piece of a panel stays in the second-level
// cache for all tokens.
template <typename T>
void Linear::multiply(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const {
  const Timed timed(ProfileSection::kProducts);
  alignas(64) int32_t sums[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t input = 0; input < inputs_; input += quantized() ? inputs_ : depth_) {
      for (int64_t t = 0; t < tokens; t += kTile) {
        const int64_t m = std::min(kTile, tokens - t);
        float* out = product + t * ld_product + p * kPanel;
        if (quantized()) {
          kernels().dequantize(int8_tile(x.quantized.from(t), m, p, sums), m, width(p), out, ld_product);
        } else {
          tile(x.x + t * x.ld, x.ld, m, p, input, out, ld_product);
        }
      }
    }
  }
}

template <typename T>
void Linear::apply(const Operand<T>& x, int64_t tokens, Range panels, Activation activation, T* out,
                   int64_t ld_out) const {
  const Timed timed(ProfileSection::kProducts);
  alignas(64) float c[kTile * kPanel];
  alignas(64) int32_t sums[kTile * kPanel];
  const HiddenKernels<T>& kernels = hidden_kernels<T>();
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t t = 0; t < tokens; t += kTile) {
      const int64_t m = std::min(kTile, tokens - t);
      T* to = out + t * ld_out + p * kPanel;
      const float* shift = bias() + p * kPanel;
      if (quantized()) {
        kernels.bias_activation_int8(int8_tile(x.quantized.from(t), m, p, sums), shift, activation, m, width(p), to,
                                     ld_out);
        continue;
      }
      for (int64_t input = 0; input < inputs_; input += depth_) tile(x.x + t * x.ld, x.ld, m, p, input, c, kPanel);
      kernels.bias_activation({c, kPanel}, shift, activation, m, width(p), to, ld_out);
    }
  }
}

template void Linear::quantize(const Operand<float>&, int64_t, Range) const;
template void Linear::quantize(const Operand<bfloat16>&, int64_t, Range) const;
template void Linear::multiply(const Operand<float>&, int64_t, Range, float*, int64_t) const;
template void Linear::multiply(const Operand<bfloat16>&, int64_t, Range, float*, int64_t) const;
template void Linear::apply(const Operand<float>&, int64_t, Range, Activation, float*, int64_t) const;
template void Linear::apply(const Operand<bfloat16>&, int64_t, Range, Activation, bfloat16*, int64_t) const;

}  // namespace moco
