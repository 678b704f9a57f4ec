// Float weights: float32 and bfloat16.
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>

#include "core/checks.h"
#include "core/isa.h"
#include "linear/packed_weights.h"
#include "linear/products.h"

namespace moco {

at::Tensor in_blocks(const at::Tensor& weight, int64_t word, int64_t inputs_step) {
  const int64_t outputs = round_up(weight.size(0), kBlock);
  const int64_t inputs = round_up(weight.size(1), inputs_step);
  return at::constant_pad_nd(weight, {0, inputs - weight.size(1), 0, outputs - weight.size(0)})
      .view({outputs / kBlock, kBlock, inputs / word, word})
      .transpose(1, 2)
      .contiguous();
}

namespace {

// Inputs of bfloat16 that are summed in one go: with more, that piece of a panel would not fit the second-level cache.
constexpr int64_t kDepthBFloat16 = 768;

template <typename T>
class Dense : public PackedWeights {
 public:
  // weight: (outputs, inputs) of T
  Dense(const at::Tensor& weight, int64_t depth)
      : PackedWeights(depth), inputs_(weight.size(1)), blocks_(in_blocks(weight, kPair, kPair)) {}

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t input, float* c,
                int64_t ld_c) const override {
    const int64_t words = blocks_.size(1);
    const auto* all = static_cast<const uint32_t*>(blocks_.const_data_ptr());
    const Columns weights{all + (first_column * words + input / kPair * kBlock), kBlock, words * kBlock};
    moco::multiply(tokens, columns, std::min(depth(), inputs_ - input), static_cast<const T*>(x.x) + input, x.ld,
                   weights, c, ld_c, input > 0);
  }

 private:
  static constexpr int64_t kPair = kWordBytes / static_cast<int64_t>(sizeof(T));  // inputs of a word
  int64_t inputs_;
  at::Tensor blocks_;  // (blocks, inputs / kPair, kBlock, kPair)
};

}  // namespace

// A multiply-add that is rounded twice errs more, so fewer of them are summed in one go.
int64_t dense_depth(int64_t depth) { return kernels().fused ? depth : depth / 4; }

std::unique_ptr<PackedWeights> pack_dense(const at::Tensor& weight, at::ScalarType dtype, int64_t depth) {
  if (dtype == at::kFloat) return std::make_unique<Dense<float>>(weight.to(dtype), dense_depth(depth));
  MOCO_CHECK_VALUE(weight.size(1) % 2 == 0, "Linear: inputs must be even in torch.bfloat16 (got ", weight.size(1), ")");
  return std::make_unique<Dense<bfloat16>>(weight.to(dtype), kDepthBFloat16);
}

}  // namespace moco
