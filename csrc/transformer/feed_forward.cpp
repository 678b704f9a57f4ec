#include "transformer/feed_forward.h"

#include <algorithm>

namespace moco {

FeedForward::FeedForward(const LayerWeights& weights, Activation activation, double eps, at::ScalarType dtype)
    : activation_(activation == Activation::kGelu && weights.output.quantized() ? Activation::kGeluTo8Bits
                                                                                : activation),
      intermediate_(weights.intermediate, dtype),
      output_(weights.output, dtype),
      norm_(weights.output_norm, eps) {}

template <typename T>
void FeedForward::run(T* hidden, int64_t tokens) const {
  const int64_t D = intermediate_.inputs();
  const int64_t ld = intermediate_.outputs() + 16;  // a stride of whole pages would crowd a tile into few cache sets
  const auto outer = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{hidden + t.first * D, D, between.quantized};
  };
  const auto inner = [&](Range, const StageBuffers<T>& between) {
    return Operand<T>{between.inner, ld, between.quantized};
  };
  const int64_t quantized = std::max(intermediate_.quantized_inputs(), output_.quantized_inputs());
  run_stages<T>(tokens, {.inner = ld, .product = D, .quantized = quantized},
                {quantize_stage<T>(intermediate_, tokens, outer),
                 {intermediate_.panels(), intermediate_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    intermediate_.apply(outer(t, between), t.size(), panels, activation_, between.inner, ld);
                  }},
                 quantize_stage<T>(output_, tokens, inner),
                 {output_.panels(), output_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    output_.multiply(inner(t, between), t.size(), panels, between.product, D);
                  }},
                 norm_stage<T>(output_, norm_, hidden)});
}

template void FeedForward::run(float*, int64_t) const;
template void FeedForward::run(bfloat16*, int64_t) const;

}  // namespace moco
