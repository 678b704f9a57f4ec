// Linear layers: products in tiles of fixed shape, so that a row's answer never depends on what it is batched with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "linear/weights.h"

namespace moco {

// The input of a linear layer: tokens (tokens, inputs); for int8 weights also room for the same, quantised.
template <typename T>
struct Operand {
  const T* x;
  int64_t ld;
  Quantized quantized;
};

// y = x weight^T + bias, as torch.nn.functional.linear computes it. Float weights are copied once into panels of kPanel
// outputs; int8 ones are in panels already and read where the model has them.
class Linear {
 public:
  static constexpr int64_t kPanel = 64;
  static constexpr int64_t kTile = 32;  // tokens at a time
  static constexpr int64_t kWord = 4;   // bytes side by side

  // Inputs that are summed in one go, then added to those before. float32: with more, sums would be less exact than
  // plain torch's (fewer cost 2% of the time). bfloat16: with more, that piece of a panel would not fit the
  // second-level cache.
  static constexpr int64_t kDepth = 384;
  static constexpr int64_t kFineDepth = 192;  // for peeks and the head: few sums, on which more depends
  static constexpr int64_t kDepthBFloat16 = 768;

  // dtype: of the panels, float32 or bfloat16; int8 weights stay int8. depth: of float32.
  Linear(const LinearWeights& weights, at::ScalarType dtype, int64_t depth = kDepth)
      : Linear(std::vector{weights}, dtype, depth) {}
  // Several layers that read the same x, as one with their outputs side by side.
  Linear(const std::vector<LinearWeights>& layers, at::ScalarType dtype, int64_t depth = kDepth);

  int64_t inputs() const { return inputs_; }
  int64_t outputs() const { return outputs_; }
  Range panels() const { return {0, (outputs_ + kPanel - 1) / kPanel}; }
  const float* bias() const { return bias_.const_data_ptr<float>(); }
  int64_t flops(int64_t tokens) const { return 2 * tokens * inputs_ * outputs_; }

  // With int8 weights, tokens are quantised before they are multiplied, kTile by kTile.
  bool quantized() const { return factor_.defined(); }
  Range tiles_to_quantize(int64_t tokens) const { return {0, quantized() ? (tokens + kTile - 1) / kTile : 0}; }
  int64_t quantized_inputs() const { return quantized() ? round_up(inputs_, kWord) : 0; }
  template <typename T>
  void quantize(const Operand<T>& x, int64_t tokens, Range tiles) const;

  // product = x weight^T without bias, for the outputs of some panels.
  //   x: (tokens, inputs), product: (tokens, outputs)
  template <typename T>
  void multiply(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const;

  // out = activation(x weight^T + bias), for the outputs of some panels.
  //   x: (tokens, inputs), out: (tokens, outputs)
  template <typename T>
  void apply(const Operand<T>& x, int64_t tokens, Range panels, Activation activation, T* out, int64_t ld_out) const;

 private:
  template <typename T>
  const T* panel(int64_t p) const {
    return static_cast<const T*>(panels_[static_cast<size_t>(p)]);
  }
  // x weight^T for one panel of int8, in c: (tokens, kPanel).
  Accumulator<int32_t> int8_tile(const Quantized& x, int64_t tokens, int64_t p, int32_t* c) const;
  // c = x weight^T, or c + that, for one panel and the inputs from `input` on. x: (tokens, inputs), c: (tokens, kPanel)
  template <typename T>
  void tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const;
  int64_t width(int64_t p) const { return p + 1 < panels().last ? kPanel : outputs_ - p * kPanel; }

  int64_t inputs_, outputs_, depth_;
  // (panels, inputs, kPanel); bfloat16: (panels, inputs / 2, kPanel, 2); int8: (panels, inputs / kWord, kPanel, kWord)
  std::vector<at::Tensor> packed_;
  std::vector<const void*> panels_;  // where each panel begins in those
  at::Tensor bias_;                  // (outputs) float32
  // Of int8 weights only, float32:
  at::Tensor factor_;        // (inputs): 1 / smooth, by which x is multiplied before it is quantised
  at::Tensor scale_, sums_;  // (outputs): the weights' scale, and the sum of an output's weights times that scale
};

}  // namespace moco
