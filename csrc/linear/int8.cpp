// int8 weights with a scale for each output, for tokens that are quantised one by one.
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <utility>

#include "core/isa.h"
#include "linear/linear.h"
#include "linear/packed_weights.h"
#include "linear/products.h"

namespace moco {

namespace {

class Int8 : public PackedWeights {
 public:
  explicit Int8(const std::vector<LinearWeights>& layers)
      : PackedWeights(layers[0].inputs()),  // sums of integers are exact: all inputs in one go
        inputs_(layers[0].inputs()),
        factor_(floats(layers[0].smooth.detach().reciprocal())) {
    // Weights are read where the model has them, unless a panel would hold outputs of two layers.
    bool panels_align = true;
    for (size_t i = 0; i + 1 < layers.size(); ++i) panels_align &= layers[i].outputs() % Linear::kPanel == 0;
    std::vector<at::Tensor> numbers, scales, sums;
    for (const LinearWeights& layer : layers) {
      if (panels_align) parts_.push_back(layer.weight.detach().contiguous());
      numbers.push_back(layer.unpacked());
      scales.push_back(layer.scale.detach());
    }
    const at::Tensor all = at::cat(numbers);
    if (!panels_align) parts_ = {in_blocks(all, kWordBytes, kInt8Inputs)};
    for (const at::Tensor& part : parts_) {
      const int64_t block_bytes = part.size(1) * kBlock * kWordBytes;
      for (int64_t block = 0; block < part.size(0); ++block) {
        blocks_.push_back(part.const_data_ptr<int8_t>() + block * block_bytes);
      }
    }
    const at::Tensor scale = floats(at::cat(scales));
    scale_ = whole_blocks(scale);
    sums_ = whole_blocks(all.sum(1));
  }

  int64_t prepared_bytes() const override { return round_up(inputs_, kInt8Inputs); }
  void prepare(const float* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    hidden_kernels<float>().quantize(x, ld, factor_.const_data_ptr<float>(), tokens, inputs_, out);
  }
  void prepare(const bfloat16* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    hidden_kernels<bfloat16>().quantize(x, ld, factor_.const_data_ptr<float>(), tokens, inputs_, out);
  }

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t /*input*/, float* c,
                int64_t ld_c) const override {
    const Columns weights{blocks_[static_cast<size_t>(first_column / kBlock)], kBlock, parts_[0].size(1) * kBlock};
    products().int8(tokens, columns, inputs_, x.prepared, weights, scale_.const_data_ptr<float>() + first_column,
                    sums_.const_data_ptr<float>() + first_column, c, ld_c);
  }

 private:
  static at::Tensor floats(const at::Tensor& values) { return values.to(at::kFloat).contiguous(); }
  static at::Tensor whole_blocks(const at::Tensor& values) {
    return floats(at::constant_pad_nd(values, {0, round_up(values.size(0), kBlock) - values.size(0)}));
  }

  int64_t inputs_;
  std::vector<at::Tensor> parts_;      // (blocks, words, kBlock, kWordBytes) each
  std::vector<const int8_t*> blocks_;  // where each block begins in those
  at::Tensor factor_;                  // (inputs): 1 / smooth
  at::Tensor scale_, sums_;            // (outputs in whole blocks): see multiply_int8
};

}  // namespace

std::unique_ptr<PackedWeights> pack_int8(const std::vector<LinearWeights>& layers) {
  return std::make_unique<Int8>(layers);
}

}  // namespace moco
