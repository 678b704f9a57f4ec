// Weights without their zeros: float32, also for tokens of bfloat16, and int8.

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "core/isa.h"
#include "core/scratch.h"
#include "linear/int8_vectors.h"
#include "linear/linear.h"
#include "linear/packed_weights.h"
#include "linear/products.h"
#include "linear/sparse_steps.h"

namespace moco {

namespace {

static_assert(kSparsePanel == Linear::kPanel);

// A kernel, and the share of multiplied weights below which it beats dense ones, with something to spare: measured by
// bench/bench_kernels.py --sparse with AVX2 and AVX-512, 25 and 128 tokens of 384 x 1536 up to 1024 x 4096. A few
// tokens fill no vector, and want fewer; they cost little.
struct Form {
  EntryShape shape;
  double pays_below;
  SparseKernels::Multiply multiply;
};
std::vector<Form> forms_of_float32() {
  const SparseKernels& sparse = kernels().sparse;
  const std::string by = products_of(DType::kFloat32);
  // Where a vector of tokens takes a whole cycle, four sums in turns wait less for each other than four terms of one.
  const double single = by == "amx" || by.starts_with("avx512") ? 0.52 : 0.45;
  return {
      {{4, 1}, 0.55, sparse.multiply_4x1}, {{1, 4}, 0.5, sparse.multiply_1x4}, {{1, 1}, single, sparse.multiply_1x1}};
}
constexpr double kInt8PaysBelow = 0.5;
// Dense products of bfloat16 are twice as fast as those of float32, in which sparse ones are computed.
constexpr double kShareForBFloat16 = 0.5;

// What the shares above are multiplied by here: nothing pays beside products of tiles.
double share_for(DType weights) {
  const std::string by = products_of(weights);
  if (by == "oneDNN" || (by == "amx" && weights != DType::kFloat32)) return 0.0;
  return weights == DType::kBFloat16 ? kShareForBFloat16 : 1.0;
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
  SparseInt8(SparseSteps steps, const std::vector<LinearWeights>& layers, const Tensor& numbers)
      : PackedWeights(layers[0].inputs()),
        steps_(std::move(steps)),
        inputs_(layers[0].inputs()),
        vectors_(layers, numbers) {}

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
                                   vectors_.scale.data<float>() + first_column,
                                   vectors_.sums.data<float>() + first_column, c, ld_c);
  }

 private:
  template <typename T>
  void quantize(const T* x, int64_t ld, int64_t tokens, const Quantized& out) const {
    static thread_local Scratch scratch;
    const Quantized rows{scratch.of<uint8_t>(Linear::kTile * prepared_bytes()), prepared_bytes(), nullptr, nullptr};
    for (int64_t t = 0; t < tokens; t += Linear::kTile) {
      const int64_t count = std::min(Linear::kTile, tokens - t);
      const Quantized to = out.from(t);
      hidden_kernels<T>().quantize(x + t * ld, ld, vectors_.factor.data<float>(), count, inputs_,
                                   {rows.values, rows.ld, to.scale, to.zero});
      hidden_kernels<float>().lay_in_strips(reinterpret_cast<const float*>(rows.values), rows.ld / kWordBytes, count,
                                            rows.ld / kWordBytes, reinterpret_cast<float*>(to.values),
                                            to.ld / kWordBytes);
    }
  }

  SparseSteps steps_;
  int64_t inputs_;
  Int8Vectors vectors_;
};

WordMatrix words_of(const Tensor& weight) {
  return {static_cast<const uint32_t*>(weight.bytes()), weight.size(0),
          weight.size(1) * element_size(weight.dtype()) / kWordBytes};
}

// weight: contiguous, of T.
template <typename T>
double share_of_nonzeros(const Tensor& weight) {
  const T* numbers = weight.data<T>();
  const int64_t zeros = std::count(numbers, numbers + weight.numel(), T{});
  return 1 - static_cast<double>(zeros) / static_cast<double>(weight.numel());
}

}  // namespace

// weight: (outputs, inputs) of the dtype.
std::unique_ptr<PackedWeights> pack_sparse(const Tensor& weight, int64_t depth) {
  const double share = share_for(weight.dtype());
  const std::vector<Form> forms = forms_of_float32();
  const Tensor numbers = weight.to(DType::kFloat32);
  if (share_of_nonzeros<float>(numbers) >= forms[0].pays_below * share) return nullptr;  // the common case, quickly
  const Tensor zeroed = numbers.clone();
  float* const first = zeroed.data<float>();
  std::replace(first, first + zeroed.numel(), -0.0F, 0.0F);  // which are equal; masks leave -0
  const WordMatrix words = words_of(zeroed);
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

std::unique_ptr<PackedWeights> pack_sparse_int8(const std::vector<LinearWeights>& layers, const Tensor& numbers) {
  const double pays_below = kInt8PaysBelow * share_for(DType::kInt8);
  if (share_of_nonzeros<int8_t>(numbers) >= pays_below) return nullptr;
  const Tensor filled = Tensor::zeros({numbers.size(0), round_up(numbers.size(1), kInt8Inputs)}, DType::kInt8);
  copy(numbers, filled.narrow(1, 0, numbers.size(1)));
  const WordMatrix words = words_of(filled);
  if (!fits(words, {1, 1})) return nullptr;
  SparseSteps steps(words, {1, 1}, words.inputs);
  if (steps.density() >= pays_below) return nullptr;
  return std::make_unique<SparseInt8>(std::move(steps), layers, numbers);
}

}  // namespace moco
