#include "gemm.h"

#include <ATen/native/CPUBlas.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <exception>

#include "checks.h"
#include "isa.h"
#include "profile.h"

namespace moco {

// brgemm is torch's door to oneDNN's micro-kernels, compiled at run time for the processor and one (M, N, K) each
// (30 to 80 us, kept per thread). A row of C is summed in the same order whatever M is (tests/test_encoder.py).
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/false);
}

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

void multiply(int64_t M, int64_t N, int64_t K, const uint8_t* a, int64_t ld_a, const int8_t* b, int64_t ld_b,
              int32_t* c, int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/true);
}

// Whether torch multiplies one such tile of zeros.
template <typename A, typename B, typename C>
static bool can_multiply_tile() {
  try {
    const A a[4] = {};
    const B b[4 * 16] = {};
    C c[16];
    multiply(1, 16, 4, a, 4, b, 16, c, 16, false);
    return true;
  } catch (const std::exception&) {  // torch refuses, or oneDNN
    return false;
  }
}

bool can_multiply(at::ScalarType weights) {
  static const bool allowed = max_isa() == IsaLevel::kAvx512Bf16;
  static const bool bfloat16s = allowed && can_multiply_tile<bfloat16, bfloat16, float>();
  static const bool bytes = allowed && can_multiply_tile<uint8_t, int8_t, int32_t>();
  return weights == at::kFloat || (weights == at::kBFloat16 && bfloat16s) || (weights == at::kChar && bytes);
}

// As products read it: (outputs, inputs), both filled up with zeros -> (panels, inputs / word, kPanel, word).
static at::Tensor pack(const at::Tensor& weight, int64_t word) {
  const int64_t outputs = round_up(weight.size(0), Linear::kPanel);
  const int64_t inputs = round_up(weight.size(1), word);
  return at::constant_pad_nd(weight, {0, inputs - weight.size(1), 0, outputs - weight.size(0)})
      .view({outputs / Linear::kPanel, Linear::kPanel, inputs / word, word})
      .transpose(1, 2)
      .contiguous();
}

at::Tensor LinearWeights::unpacked() const {
  if (!quantized()) return weight;
  const at::Tensor all =
      weight.transpose(1, 2).reshape({weight.size(0) * Linear::kPanel, weight.size(1) * Linear::kWord});
  return all.narrow(0, 0, outputs()).narrow(1, 0, inputs());
}

at::Tensor LinearWeights::dense() const {
  return quantized() ? unpacked().mul(scale.unsqueeze(1)).div(smooth) : weight;
}

Linear::Linear(const std::vector<LinearWeights>& layers, at::ScalarType dtype, int64_t depth)
    : inputs_(layers[0].inputs()), outputs_(0), depth_(dtype == at::kFloat ? depth : kDepthBFloat16) {
  bool apart = true;  // no panel holds outputs of two layers
  for (const LinearWeights& layer : layers) {
    apart = apart && outputs_ % kPanel == 0;
    outputs_ += layer.outputs();
  }
  const auto all = [&](const auto& of) {
    std::vector<at::Tensor> each;
    for (const LinearWeights& layer : layers) each.push_back(of(layer).detach());
    return each.size() == 1 ? each[0] : at::cat(each);
  };
  const bool bytes = layers[0].quantized();
  if (bytes && apart) {
    for (const LinearWeights& layer : layers) packed_.push_back(layer.weight.contiguous());
  } else {
    MOCO_CHECK_VALUE(bytes || dtype == at::kFloat || inputs_ % 2 == 0,
                     "Linear: inputs must be even in torch.bfloat16 (got ", inputs_, ")");
    const at::Tensor weight = all([](const LinearWeights& layer) { return layer.unpacked(); });
    packed_.push_back(bytes ? pack(weight, kWord) : pack(weight.to(dtype), dtype == at::kFloat ? 1 : 2));
  }
  for (const at::Tensor& packed : packed_) {
    for (int64_t p = 0; p < packed.size(0); ++p) panels_.push_back(packed.select(0, p).const_data_ptr());
  }
  const auto floats = [](const at::Tensor& values) { return values.to(at::kFloat).contiguous(); };
  bias_ = layers[0].bias.defined() ? floats(all([](const LinearWeights& layer) { return layer.bias; }))
                                   : at::zeros({outputs_});
  if (!bytes) return;
  factor_ = floats(layers[0].smooth.detach().reciprocal());
  scale_ = floats(all([](const LinearWeights& layer) { return layer.scale; }));
  sums_ = floats(all([](const LinearWeights& layer) {
    return layer.weight.sum({1, 3}).flatten().narrow(0, 0, layer.outputs()).mul(layer.scale);
  }));
}

template <typename T>
void Linear::tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const {
  multiply(tokens, width(p), std::min(depth_, inputs_ - input), x + input, ld_x, panel<T>(p) + input * kPanel, kPanel,
           c, ld_c, input > 0);
}

template <typename T>
void Linear::quantize(const Operand<T>& x, int64_t tokens, Range tiles) const {
  if (!quantized()) return;
  const Timed timed(Part::kQuantize);
  const int64_t first = tiles.first * kTile;
  const int64_t last = std::min(tokens, tiles.last * kTile);
  hidden_kernels<T>().quantize(x.x + first * x.ld, x.ld, factor_.const_data_ptr<float>(), last - first, inputs_,
                               x.quantized.from(first));
}

Product<int32_t> Linear::tile_of_bytes(const Quantized& x, int64_t tokens, int64_t p, int32_t* c) const {
  multiply(tokens, width(p), quantized_inputs(), x.values, x.ld, panel<int8_t>(p), kPanel, c, kPanel, false);
  return {c, kPanel, x, scale_.const_data_ptr<float>() + p * kPanel, sums_.const_data_ptr<float>() + p * kPanel};
}

// Weights outside, tokens inside: a piece of a panel stays in the second-level cache for all of them.
template <typename T>
void Linear::product(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const {
  const Timed timed(Part::kProducts);
  alignas(64) int32_t sums[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t input = 0; input < inputs_; input += quantized() ? inputs_ : depth_) {
      for (int64_t t = 0; t < tokens; t += kTile) {
        const int64_t m = std::min(kTile, tokens - t);
        float* out = product + t * ld_product + p * kPanel;
        if (quantized()) {
          kernels().dequantize(tile_of_bytes(x.quantized.from(t), m, p, sums), m, width(p), out, ld_product);
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
  const Timed timed(Part::kProducts);
  alignas(64) float c[kTile * kPanel];
  alignas(64) int32_t sums[kTile * kPanel];
  const HiddenKernels<T>& kernels = hidden_kernels<T>();
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t t = 0; t < tokens; t += kTile) {
      const int64_t m = std::min(kTile, tokens - t);
      T* to = out + t * ld_out + p * kPanel;
      const float* shift = bias() + p * kPanel;
      if (quantized()) {
        kernels.bias_activation_of_bytes(tile_of_bytes(x.quantized.from(t), m, p, sums), shift, activation, m, width(p),
                                         to, ld_out);
        continue;
      }
      for (int64_t input = 0; input < inputs_; input += depth_) tile(x.x + t * x.ld, x.ld, m, p, input, c, kPanel);
      kernels.bias_activation({c, kPanel}, shift, activation, m, width(p), to, ld_out);
    }
  }
}

template void Linear::quantize(const Operand<float>&, int64_t, Range) const;
template void Linear::quantize(const Operand<bfloat16>&, int64_t, Range) const;
template void Linear::product(const Operand<float>&, int64_t, Range, float*, int64_t) const;
template void Linear::product(const Operand<bfloat16>&, int64_t, Range, float*, int64_t) const;
template void Linear::apply(const Operand<float>&, int64_t, Range, Activation, float*, int64_t) const;
template void Linear::apply(const Operand<bfloat16>&, int64_t, Range, Activation, bfloat16*, int64_t) const;

}  // namespace moco
