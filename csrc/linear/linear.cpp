#include "linear/linear.h"

#include <algorithm>
#include <utility>

#include "core/isa.h"
#include "core/profile.h"

namespace moco {

static Tensor concatenated(const std::vector<LinearWeights>& layers, Tensor LinearWeights::* part, DType dtype) {
  std::vector<Tensor> each;
  for (const LinearWeights& layer : layers) each.push_back((layer.*part).to(dtype));
  return each.size() == 1 ? each[0] : Tensor::concatenated(each);
}

static std::unique_ptr<PackedWeights> pack(const std::vector<LinearWeights>& layers, DType dtype,
                                           const LinearOptions& options) {
  std::unique_ptr<PackedWeights> sparse;
  if (layers[0].quantized()) {
    const Tensor numbers = numbers_of(layers);
    if (options.skip_zeros) sparse = pack_sparse_int8(layers, numbers);
    return sparse ? std::move(sparse) : pack_int8(layers, numbers);
  }
  const Tensor weight = concatenated(layers, &LinearWeights::weight, dtype);
  if (options.skip_zeros) sparse = pack_sparse(weight, options.depth);
  return sparse ? std::move(sparse) : pack_dense(weight, options.depth);
}

Linear::Linear(const std::vector<LinearWeights>& layers, DType dtype, LinearOptions options)
    : inputs_(layers[0].inputs()), outputs_(0), weights_(pack(layers, dtype, options)) {
  for (const LinearWeights& layer : layers) outputs_ += layer.outputs();
  bias_ = Tensor::zeros({outputs_}, DType::kFloat32);
  if (layers[0].bias.defined()) copy(concatenated(layers, &LinearWeights::bias, DType::kFloat32), bias_);
}

template <typename T>
void Linear::prepare(const Operand<T>& x, int64_t tokens, Range tiles) const {
  const Timed timed(ProfileSection::kPrepare);
  const Range own = tokens_of(tiles, tokens);
  weights_->prepare(x.x + own.first * x.ld, x.ld, own.size(), x.prepared.from(own.first));
}

void Linear::tile(const Tokens& x, int64_t tokens, int64_t panel, float* c) const {
  for (int64_t input = 0; input < inputs_; input += weights_->depth()) {
    weights_->multiply(x, tokens, panel * kPanel, width(panel), input, c, kPanel);
  }
}

// The loop over weights is the outer one, that over tokens the inner one: a piece of a panel stays in the second-level
// cache for all tokens.
template <typename T>
void Linear::multiply(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const {
  const Timed timed(ProfileSection::kProducts);
  alignas(64) float c[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    float* out = product + p * kPanel;
    if (width(p) % kBlock != 0) {  // whole blocks would be written over what stands beside them
      for (int64_t t = 0; t < tokens; t += kTile) {
        const int64_t count = std::min(kTile, tokens - t);
        tile(x.from(t), count, p, c);
        for (int64_t i = 0; i < count; ++i) std::copy_n(c + i * kPanel, width(p), out + (t + i) * ld_product);
      }
      continue;
    }
    for (int64_t input = 0; input < inputs_; input += weights_->depth()) {
      for (int64_t t = 0; t < tokens; t += kTile) {
        weights_->multiply(x.from(t), std::min(kTile, tokens - t), p * kPanel, width(p), input, out + t * ld_product,
                           ld_product);
      }
    }
  }
}

template <typename T>
void Linear::apply(const Operand<T>& x, int64_t tokens, Range panels, Activation activation, T* out,
                   int64_t ld_out) const {
  const Timed timed(ProfileSection::kProducts);
  alignas(64) float c[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t t = 0; t < tokens; t += kTile) {
      const int64_t count = std::min(kTile, tokens - t);
      tile(x.from(t), count, p, c);
      hidden_kernels<T>().bias_activation(c, kPanel, bias() + p * kPanel, activation, count, width(p),
                                          out + t * ld_out + p * kPanel, ld_out);
    }
  }
}

template <typename T>
void Linear::apply_gated(const Linear& up, const Operand<T>& x, int64_t tokens, Range panels, Activation activation,
                         T* out, int64_t ld_out) const {
  const Timed timed(ProfileSection::kProducts);
  alignas(64) float opened[kTile * kPanel];
  alignas(64) float c[kTile * kPanel];
  for (int64_t p = panels.first; p < panels.last; ++p) {
    for (int64_t t = 0; t < tokens; t += kTile) {
      const int64_t count = std::min(kTile, tokens - t);
      tile(x.from(t), count, p, opened);
      up.tile(x.from(t), count, p, c);
      hidden_kernels<T>().gated(opened, c, kPanel, bias() + p * kPanel, up.bias() + p * kPanel, activation, count,
                                width(p), out + t * ld_out + p * kPanel, ld_out);
    }
  }
}

template void Linear::prepare(const Operand<float>&, int64_t, Range) const;
template void Linear::prepare(const Operand<bfloat16>&, int64_t, Range) const;
template void Linear::multiply(const Operand<float>&, int64_t, Range, float*, int64_t) const;
template void Linear::multiply(const Operand<bfloat16>&, int64_t, Range, float*, int64_t) const;
template void Linear::apply(const Operand<float>&, int64_t, Range, Activation, float*, int64_t) const;
template void Linear::apply(const Operand<bfloat16>&, int64_t, Range, Activation, bfloat16*, int64_t) const;
template void Linear::apply_gated(const Linear&, const Operand<float>&, int64_t, Range, Activation, float*,
                                  int64_t) const;
template void Linear::apply_gated(const Linear&, const Operand<bfloat16>&, int64_t, Range, Activation, bfloat16*,
                                  int64_t) const;

}  // namespace moco
