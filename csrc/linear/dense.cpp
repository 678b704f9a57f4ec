// Float weights: float32 and bfloat16.

#include <algorithm>
#include <cstring>

#include "core/checks.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "linear/packed_weights.h"
#include "linear/products.h"

namespace moco {

Tensor in_blocks(const Tensor& weight, int64_t word, int64_t inputs_step) {
  const int64_t outputs = weight.size(0);
  const int64_t inputs = weight.size(1);
  const int64_t words = round_up(inputs, inputs_step) / word;
  const int64_t blocks = round_up(outputs, kBlock) / kBlock;
  const Tensor from = weight.contiguous();
  const Tensor out = Tensor::zeros({blocks, words, kBlock, word}, weight.dtype());
  const int64_t line = inputs * element_size(weight.dtype());
  parallel_ranges(0, blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t output = first * kBlock; output < std::min(last * kBlock, outputs); ++output) {
      const char* read = static_cast<const char*>(from.bytes()) + output * line;
      char* write = static_cast<char*>(out.bytes()) + (output / kBlock * words * kBlock + output % kBlock) * kWordBytes;
      for (int64_t left = line; left > 0; left -= kWordBytes) {
        std::memcpy(write, read, static_cast<size_t>(std::min(left, kWordBytes)));
        read += kWordBytes;
        write += kBlock * kWordBytes;
      }
    }
  });
  return out;
}

namespace {

// Inputs of bfloat16 that are summed in one go: with more, that piece of a panel would not fit the second-level cache.
constexpr int64_t kDepthBFloat16 = 768;

template <typename T>
class Dense : public PackedWeights {
 public:
  // weight: (outputs, inputs) of T
  Dense(const Tensor& weight, int64_t depth)
      : PackedWeights(depth), inputs_(weight.size(1)), blocks_(in_blocks(weight, kPair, kPair)) {}

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t input, float* c,
                int64_t ld_c) const override {
    const int64_t words = blocks_.size(1);
    const auto* all = static_cast<const uint32_t*>(blocks_.bytes());
    const Columns weights{all + (first_column * words + input / kPair * kBlock), kBlock, words * kBlock};
    moco::multiply(tokens, columns, std::min(depth(), inputs_ - input), static_cast<const T*>(x.x) + input, x.ld,
                   weights, c, ld_c, input > 0);
  }

 private:
  static constexpr int64_t kPair = kWordBytes / static_cast<int64_t>(sizeof(T));  // inputs of a word
  int64_t inputs_;
  Tensor blocks_;  // (blocks, inputs / kPair, kBlock, kPair)
};

}  // namespace

// A multiply-add that is rounded twice errs more, so fewer of them are summed in one go.
int64_t dense_depth(int64_t depth) { return kernels().fused ? depth : depth / 4; }

std::unique_ptr<PackedWeights> pack_dense(const Tensor& weight, int64_t depth) {
  if (weight.dtype() == DType::kFloat32) return std::make_unique<Dense<float>>(weight, dense_depth(depth));
  MOCO_CHECK_VALUE(weight.size(1) % 2 == 0, "Linear: inputs must be even in torch.bfloat16 (got ", weight.size(1), ")");
  return std::make_unique<Dense<bfloat16>>(weight, kDepthBFloat16);
}

}  // namespace moco
