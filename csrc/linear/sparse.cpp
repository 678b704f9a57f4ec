// Weights without their zeros: float32, also for tokens of bfloat16, and int8.
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "core/isa.h"
#include "core/scratch.h"
#include "linear/linear.h"
#include "linear/packed_weights.h"
#include "linear/products.h"
#include "linear/sparse_steps.h"

namespace moco {

namespace {

static_assert(kSparsePanel == Linear::kPanel);

// A kernel, and the share of multiplied weights below which it beats dense ones, with something to spare: measured by
// bench/bench_kernels.py --sparse with AVX2, 25 and 128 tokens of 384 x 1536 up to 1024 x 4096. A few tokens fill no
// vector, and want fewer; they cost little.
struct Form {
  EntryShape shape;
  double pays_below;
  SparseKernels::Multiply multiply;
};
std::vector<Form> forms_of_float32() {
  const SparseKernels& sparse = kernels().sparse;
  return {{{4, 1}, 0.55, sparse.multiply_4x1}, {{1, 4}, 0.4, sparse.multiply_1x4}, {{1, 1}, 0.35, sparse.multiply_1x1}};
}
constexpr double kInt8PaysBelow = 0.4;
// Dense products of bfloat16 are twice as fast as those of float32, in which sparse ones are computed.
constexpr double kShareForBFloat16 = 0.5;

// What the shares above are multiplied by here. Nothing pays where oneDNN multiplies tiles. With AVX-512 half as many
// sums are under way: until that is measured it must save more.
double share_for(at::ScalarType weights) {
  if (products_of(weights) == "oneDNN") return 0.0;
  const double share = std::string_view(kernels().isa).starts_with("avx512") ? 0.75 : 1.0;
  return weights == at::kBFloat16 ? share * kShareForBFloat16 : share;
}

bool fits(const WordMatrix& weights, EntryShape shape) {
  return weights.inputs % shape.run == 0 && weights.inputs <= std::numeric_limits<uint16_t>::max();
}

// Float weights.
class SparseFloat : public PackedWeights {
 public:
  SparseFloat(SparseSteps steps, SparseKernels::Multiply kernel, int64_t inputs)
      : PackedWeights(inputs), steps_(std::move(steps)), kernel_(kernel), inputs_(inputs) {}

  double density() const override { return steps_.density(); }
  int64_t prepared_bytes() const override { return inputs_ * kWordBytes; }
  void prepare(const float* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    lay(x, ld, tokens, out);
  }
  void prepare(const bfloat16* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    lay(x, ld, tokens, out);
  }

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t /*input*/, float* c,
                int64_t ld_c) const override {
    kernel_(tokens, columns, x.prepared, steps_.panel(first_column / kSparsePanel), c, ld_c);
  }

 private:
  template <typename T>
  void lay(const T* x, int64_t ld, int64_t tokens, const Quantized& out) const {
    hidden_kernels<T>().lay_in_strips(x, ld, tokens, inputs_, reinterpret_cast<float*>(out.values),
                                      out.ld / kWordBytes);
  }

  SparseSteps steps_;
  SparseKernels::Multiply kernel_;
  int64_t inputs_;
};

class SparseInt8 : public PackedWeights {
 public:
  SparseInt8(SparseSteps steps, const std::vector<LinearWeights>& layers, const at::Tensor& numbers)
      : PackedWeights(layers[0].inputs()),
        steps_(std::move(steps)),
        inputs_(layers[0].inputs()),
        factor_(layers[0].smooth.detach().reciprocal().to(at::kFloat).contiguous()),
        sums_(whole_blocks(numbers.sum(1))) {
    std::vector<at::Tensor> scales;
    for (const LinearWeights& layer : layers) scales.push_back(layer.scale.detach());
    scale_ = whole_blocks(at::cat(scales));
  }

  double density() const override { return steps_.density(); }
  int64_t prepared_bytes() const override { return round_up(inputs_, kInt8Inputs); }
  void prepare(const float* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    quantize(x, ld, tokens, out);
  }
  void prepare(const bfloat16* x, int64_t ld, int64_t tokens, const Quantized& out) const override {
    quantize(x, ld, tokens, out);
  }

  void multiply(const Tokens& x, int64_t tokens, int64_t first_column, int64_t columns, int64_t /*input*/, float* c,
                int64_t ld_c) const override {
    kernels().sparse.multiply_int8(tokens, columns, x.prepared, steps_.panel(first_column / kSparsePanel),
                                   scale_.const_data_ptr<float>() + first_column,
                                   sums_.const_data_ptr<float>() + first_column, c, ld_c);
  }

 private:
  static at::Tensor whole_blocks(const at::Tensor& values) {
    return at::constant_pad_nd(values, {0, round_up(values.size(0), kBlock) - values.size(0)})
        .to(at::kFloat)
        .contiguous();
  }

  template <typename T>
  void quantize(const T* x, int64_t ld, int64_t tokens, const Quantized& out) const {
    static thread_local Scratch scratch;
    const Quantized rows{scratch.of<uint8_t>(Linear::kTile * prepared_bytes()), prepared_bytes(), nullptr, nullptr};
    for (int64_t t = 0; t < tokens; t += Linear::kTile) {
      const int64_t count = std::min(Linear::kTile, tokens - t);
      const Quantized to = out.from(t);
      hidden_kernels<T>().quantize(x + t * ld, ld, factor_.const_data_ptr<float>(), count, inputs_,
                                   {rows.values, rows.ld, to.scale, to.zero});
      hidden_kernels<float>().lay_in_strips(reinterpret_cast<const float*>(rows.values), rows.ld / kWordBytes, count,
                                            rows.ld / kWordBytes, reinterpret_cast<float*>(to.values),
                                            to.ld / kWordBytes);
    }
  }

  SparseSteps steps_;
  int64_t inputs_;
  at::Tensor factor_;        // (inputs): 1 / smooth
  at::Tensor sums_, scale_;  // (outputs in whole blocks): see multiply_int8
};

WordMatrix words_of(const at::Tensor& weight) {
  return {static_cast<const uint32_t*>(weight.const_data_ptr()), weight.size(0),
          weight.size(1) * weight.element_size() / kWordBytes};
}

double share_of_nonzeros(const at::Tensor& weight) {
  return static_cast<double>(weight.count_nonzero().item<int64_t>()) / static_cast<double>(weight.numel());
}

}  // namespace

std::unique_ptr<PackedWeights> pack_sparse(const at::Tensor& weight, at::ScalarType dtype, int64_t depth) {
  const double share = share_for(dtype);
  const std::vector<Form> forms = forms_of_float32();
  if (share_of_nonzeros(weight) >= forms[0].pays_below * share) return nullptr;  // the common case, quickly
  // Adding 0 turns -0, which masks leave, to 0.
  const at::Tensor rounded = weight.to(dtype).to(at::kFloat).add(0.0).contiguous();
  const WordMatrix words = words_of(rounded);
  std::optional<SparseSteps> best;
  const Form* form = nullptr;
  double least_time = share;
  for (const Form& each : forms) {
    if (!fits(words, each.shape)) continue;
    SparseSteps steps(words, each.shape, dense_depth(depth));
    const double time = steps.density() / each.pays_below;
    if (time >= least_time) continue;
    least_time = time;
    best = std::move(steps);
    form = &each;
  }
  if (form == nullptr) return nullptr;
  return std::make_unique<SparseFloat>(std::move(*best), form->multiply, weight.size(1));
}

std::unique_ptr<PackedWeights> pack_sparse_int8(const std::vector<LinearWeights>& layers) {
  std::vector<at::Tensor> each;
  for (const LinearWeights& layer : layers) each.push_back(layer.unpacked().detach());
  const at::Tensor numbers = at::cat(each);
  const double pays_below = kInt8PaysBelow * share_for(at::kChar);
  if (share_of_nonzeros(numbers) >= pays_below) return nullptr;
  const int64_t filling = round_up(numbers.size(1), kInt8Inputs) - numbers.size(1);
  const at::Tensor filled = at::constant_pad_nd(numbers, {0, filling}).contiguous();
  const WordMatrix words = words_of(filled);
  if (!fits(words, {1, 1})) return nullptr;
  SparseSteps steps(words, {1, 1}, words.inputs);
  if (steps.density() >= pays_below) return nullptr;
  return std::make_unique<SparseInt8>(std::move(steps), layers, numbers);
}

}  // namespace moco
