// int8 weights with a scale for each output, for tokens that are quantised one by one.

#include <utility>

#include "core/isa.h"
#include "linear/int8_vectors.h"
#include "linear/linear.h"
#include "linear/packed_weights.h"
#include "linear/products.h"

namespace moco {

namespace {

class Int8 : public PackedWeights {
 public:
  // all: (outputs, inputs), the numbers of all layers.
  Int8(const std::vector<LinearWeights>& layers, const Tensor& all)
      : PackedWeights(layers[0].inputs()),  // sums of integers are exact: all inputs in one go
        inputs_(layers[0].inputs()),
        vectors_(layers, all) {
    // Weights are read where the model has them, unless a panel would hold outputs of two layers.
    bool panels_align = true;
    for (size_t i = 0; i + 1 < layers.size(); ++i) panels_align &= layers[i].outputs() % Linear::kPanel == 0;
    if (panels_align) {
      for (const LinearWeights& layer : layers) parts_.push_back(layer.weight.contiguous());
    } else {
      parts_ = {in_blocks(all, kWordBytes, kInt8Inputs)};
    }
    for (const Tensor& part : parts_) {
      const int64_t block_bytes = part.size(1) * kBlock * kWordBytes;
      for (int64_t block = 0; block < part.size(0); ++block) {
        blocks_.push_back(part.data<int8_t>() + block * block_bytes);
      }
    }
  }

  int64_t prepared_bytes() const override { return round_up(inputs_, kInt8Inputs); }
  void prepare(const float* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    hidden_kernels<float>().quantize(x, ld, vectors_.factor.data<float>(), tokens, inputs_, out);
  }
  void prepare(const bfloat16* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    hidden_kernels<bfloat16>().quantize(x, ld, vectors_.factor.data<float>(), tokens, inputs_, out);
  }

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t /*input*/, float* c,
                int64_t ld_c) const override {
    const Columns weights{blocks_[static_cast<size_t>(first_column / kBlock)], kBlock, parts_[0].size(1) * kBlock};
    products().int8(tokens, columns, inputs_, x.prepared, weights, vectors_.scale.data<float>() + first_column,
                    vectors_.sums.data<float>() + first_column, c, ld_c);
  }

 private:
  int64_t inputs_;
  std::vector<Tensor> parts_;          // (blocks, words, kBlock, kWordBytes) each
  std::vector<const int8_t*> blocks_;  // where each block begins in those
  Int8Vectors vectors_;
};

}  // namespace

std::unique_ptr<PackedWeights> pack_int8(const std::vector<LinearWeights>& layers, const Tensor& numbers) {
  return std::make_unique<Int8>(layers, numbers);
}

}  // namespace moco
