// Every matrix product: tiles of fixed shape, so that a row's answer never depends on what it is batched with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace moco {

// first, first + 1, ... last - 1
struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// Whether products of such weights can be had here: float32 on every processor, bfloat16 where the processor multiplies
// it (AVX-512 BF16), int8 where it sums products of bytes into 32 bits (AVX-512 VNNI).
bool can_multiply(at::ScalarType weights);

// C = A B, or C + A B. a: (M, K), c: (M, N); b: (K, N), bfloat16: (K / 2, N, 2), pairs of inputs side by side, int8:
// (K / 4, N, 4).
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add);
void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add);
void multiply(int64_t M, int64_t N, int64_t K, const uint8_t* a, int64_t ld_a, const int8_t* b, int64_t ld_b,
              int32_t* c, int64_t ld_c, bool add);

// As the model was trained; or int8, where what multiplies x[k] / smooth[k] is scale[n] * weight[n][k], and x is
// quantised too, see Quantized.
struct LinearWeights {
  // (outputs, inputs), or of int8 the panels that Linear reads; (outputs), may be undefined: none
  at::Tensor weight, bias;
  at::Tensor scale = {}, smooth = {};  // (outputs), (inputs) float32; undefined where weight is not int8

  bool quantized() const { return scale.defined(); }
  int64_t outputs() const { return quantized() ? scale.size(0) : weight.size(0); }
  int64_t inputs() const { return quantized() ? smooth.size(0) : weight.size(1); }
  // (outputs, inputs), whatever the weight is.
  at::Tensor unpacked() const;
  // What multiplies x: (outputs, inputs).
  at::Tensor dense() const;
};

// What a product reads: tokens (tokens, inputs), and, for int8 weights, what Linear::quantize made of them.
template <typename T>
struct Operand {
  const T* x;
  int64_t ld;
  Quantized quantized;
};

// y = x weight^T + bias, torch.nn.functional.linear, with the weight packed once into panels of kPanel outputs; or, of
// int8, read where the model has it.
class Linear {
 public:
  static constexpr int64_t kPanel = 64;
  static constexpr int64_t kTile = 32;  // tokens at a time
  static constexpr int64_t kWord = 4;   // bytes side by side

  // Inputs that are summed in one go, then added to those before. float32: with more, sums would be less exact than
  // plain torch's (fewer cost 2% of the time). bfloat16: with more, that piece of a panel would not fit the
  // second-level cache.
  static constexpr int64_t kDepth = 384;
  static constexpr int64_t kFineDepth = 192;  // for what a peek or the head reads: few sums, on which more depends
  static constexpr int64_t kDepthBFloat16 = 768;

  // Packed as dtype, float32 or bfloat16, or as int8 where they are. depth: of float32.
  Linear(const LinearWeights& weights, at::ScalarType dtype, int64_t depth = kDepth)
      : Linear(std::vector{weights}, dtype, depth) {}
  // Of layers that read the same x: their outputs side by side.
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
  void product(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const;

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
  Product<int32_t> tile_of_bytes(const Quantized& x, int64_t tokens, int64_t p, int32_t* c) const;
  // c = x weight^T, or c + that, for one panel and the inputs from `input` on. x: (tokens, inputs), c: (tokens, kPanel)
  template <typename T>
  void tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const;
  int64_t width(int64_t p) const { return p + 1 < panels().last ? kPanel : outputs_ - p * kPanel; }

  int64_t inputs_, outputs_, depth_;
  // (panels, inputs, kPanel); bfloat16: (panels, inputs / 2, kPanel, 2); int8: (panels, inputs / kWord, kPanel, kWord)
  std::vector<at::Tensor> packed_;
  std::vector<const void*> panels_;  // in those
  at::Tensor bias_;                  // (outputs) float32
  at::Tensor factor_;        // (inputs) float32: what x is multiplied by before it is quantised; undefined: not int8
  at::Tensor scale_, sums_;  // (outputs) float32: of int8 weights, and the sum of an output's weights, scaled
};

}  // namespace moco
