// Linear layers: products in tiles of fixed shape, so that a row's answer never depends on what it is batched with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "linear/packed_weights.h"
#include "linear/weights.h"
#include "tensor/tensor.h"

namespace moco {

// The input of a linear layer: tokens (tokens, inputs); where weights ask for it also room for the same, prepared.
template <typename T>
struct Operand {
  const T* x;
  int64_t ld;
  Quantized prepared;

  Tokens from(int64_t token) const { return {x + token * ld, ld, prepared.from(token)}; }
};

struct LinearOptions {
  // Inputs of float32 that are summed in one go, then added to those before. With more, sums would be less exact than
  // plain torch's (fewer cost 2% of the time).
  int64_t depth = 384;
  bool skip_zeros = false;  // for callers that let it prepare tokens: weights most of which are zeros become sparse
};

// y = x weight^T + bias, as torch.nn.functional.linear computes it, whatever form the weights are in.
class Linear {
 public:
  static constexpr int64_t kPanel = 64;  // outputs at a time
  static constexpr int64_t kTile = 32;   // tokens at a time

  // Inputs that are summed in one go, then added to those before, where more depends on a sum: of peeks, the head.
  static constexpr int64_t kFineDepth = 192;

  // dtype: of float weights, float32 or bfloat16; int8 weights stay int8.
  Linear(const LinearWeights& weights, DType dtype, LinearOptions options = {})
      : Linear(std::vector{weights}, dtype, options) {}
  // Several layers that read the same x, as one with their outputs side by side.
  Linear(const std::vector<LinearWeights>& layers, DType dtype, LinearOptions options = {});

  int64_t inputs() const { return inputs_; }
  int64_t outputs() const { return outputs_; }
  Range panels() const { return {0, (outputs_ + kPanel - 1) / kPanel}; }
  const float* bias() const { return bias_.data<float>(); }
  double density() const { return weights_->density(); }
  int64_t flops(int64_t tokens) const {
    return static_cast<int64_t>(density() * static_cast<double>(2 * tokens * inputs_ * outputs_));
  }

  // Tokens are also shared out by tiles where nothing is multiplied.
  static Range tiles(int64_t tokens) { return {0, (tokens + kTile - 1) / kTile}; }
  static Range tokens_of(Range tiles, int64_t tokens) {
    return {tiles.first * kTile, std::min(tokens, tiles.last * kTile)};
  }

  // What a token takes, in bytes, once it is prepared for the products; 0: they read tokens as they are.
  int64_t prepared_bytes() const { return weights_->prepared_bytes(); }
  Range tiles_to_prepare(int64_t tokens) const { return prepared_bytes() == 0 ? Range{0, 0} : tiles(tokens); }
  template <typename T>
  void prepare(const Operand<T>& x, int64_t tokens, Range tiles) const;

  // product = x weight^T without bias, for the outputs of some panels.
  //   x: (tokens, inputs), product: (tokens, outputs)
  template <typename T>
  void multiply(const Operand<T>& x, int64_t tokens, Range panels, float* product, int64_t ld_product) const;

  // out = activation(x weight^T + bias), for the outputs of some panels.
  //   x: (tokens, inputs), out: (tokens, outputs)
  template <typename T>
  void apply(const Operand<T>& x, int64_t tokens, Range panels, Activation activation, T* out, int64_t ld_out) const;

  // out = activation(this of x) * up of x, for the outputs of some panels of two layers of one size and smooth.
  template <typename T>
  void apply_gated(const Linear& up, const Operand<T>& x, int64_t tokens, Range panels, Activation activation, T* out,
                   int64_t ld_out) const;

 private:
  // c = x weight^T for one panel. x: (tokens, inputs), c: (tokens, kPanel)
  void tile(const Tokens& x, int64_t tokens, int64_t panel, float* c) const;
  int64_t width(int64_t panel) const { return panel + 1 < panels().last ? kPanel : outputs_ - panel * kPanel; }

  int64_t inputs_, outputs_;
  std::shared_ptr<const PackedWeights> weights_;  // shared by copies
  Tensor bias_;                                   // (outputs) float32
};

}  // namespace moco
