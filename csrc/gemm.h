// Every matrix product: tiles of fixed shape, so that a row's answer never depends on what it is batched with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "kernels/kernels.h"

namespace moco {

// first, first + 1, ... last - 1
struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// Whether products in dtype can be had here: float32 on every processor, bfloat16 from AVX-512 on.
bool can_multiply(at::ScalarType dtype);

// C = A B, or C + A B. a: (M, K), c: (M, N); b: (K, N), bfloat16: (K / 2, N, 2), pairs of inputs side by side.
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add);
void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add);

// y = x weight^T + bias, torch.nn.functional.linear, with the weight packed once into panels of kPanel outputs.
class Linear {
 public:
  static constexpr int64_t kPanel = 64;
  static constexpr int64_t kTile = 32;  // tokens at a time

  // Inputs that are summed in one go, then added to those before. float32: with more, sums would be less exact than
  // plain torch's (fewer cost 2% of the time). bfloat16: with more, that piece of a panel would not fit the
  // second-level cache.
  static constexpr int64_t kDepth = 384;
  static constexpr int64_t kFineDepth = 192;  // for what a peek or the head reads: few sums, on which more depends
  static constexpr int64_t kDepthBFloat16 = 768;

  // weight: (outputs, inputs); bias: (outputs), or undefined: none. Packed as dtype, float32 or bfloat16. depth: of
  // float32.
  Linear(const at::Tensor& weight, const at::Tensor& bias, at::ScalarType dtype, int64_t depth = kDepth);

  int64_t inputs() const { return inputs_; }
  int64_t outputs() const { return outputs_; }
  Range panels() const { return {0, (outputs_ + kPanel - 1) / kPanel}; }
  const float* bias() const { return bias_.const_data_ptr<float>(); }
  int64_t flops(int64_t tokens) const { return 2 * tokens * inputs_ * outputs_; }

  // product = x weight^T without bias, for the outputs of some panels.
  //   x: (tokens, inputs), product: (tokens, outputs)
  template <typename T>
  void product(const T* x, int64_t ld_x, int64_t tokens, Range panels, float* product, int64_t ld_product) const;

  // out = activation(x weight^T + bias), for the outputs of some panels.
  //   x: (tokens, inputs), out: (tokens, outputs)
  template <typename T>
  void apply(const T* x, int64_t ld_x, int64_t tokens, Range panels, Activation activation, T* out,
             int64_t ld_out) const;

 private:
  template <typename T>
  const T* panel(int64_t p) const;
  // c = x weight^T, or c + that, for one panel and the inputs from `input` on. x: (tokens, inputs), c: (tokens, kPanel)
  template <typename T>
  void tile(const T* x, int64_t ld_x, int64_t tokens, int64_t p, int64_t input, float* c, int64_t ld_c) const;
  int64_t width(int64_t p) const { return p + 1 < panels().last ? kPanel : outputs_ - p * kPanel; }

  int64_t inputs_, outputs_, depth_;
  at::Tensor packed_;  // (panels, inputs, kPanel); bfloat16: (panels, inputs / 2, kPanel, 2)
  at::Tensor bias_;    // (outputs) float32
};

}  // namespace moco
