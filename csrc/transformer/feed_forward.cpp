#include "transformer/feed_forward.h"

#include <algorithm>

#include "transformer/activation.h"

namespace moco {

namespace {

// The weights, if they fit each other.
const FeedForwardSpec& checked(const FeedForwardSpec& spec) {
  const int64_t D = spec.down.outputs();
  const int64_t F = spec.down.inputs();
  check_linear(spec.up, F, D);
  check_linear(spec.down, D, F);
  if (spec.gate) {
    check_linear(*spec.gate, F, D);
    check_same_tokens(spec.up, *spec.gate);
  }
  return spec;
}

}  // namespace

FeedForward::FeedForward(const FeedForwardSpec& spec, const SubLayerNorms& norms, at::ScalarType dtype)
    : activation_(activation_from_name(checked(spec).activation)),
      up_(spec.up, dtype),
      down_(spec.down, dtype),
      norms_(norms, spec.down.outputs()) {
  if (spec.gate) {
    gate_.emplace(*spec.gate, dtype);
  } else if (activation_ == Activation::kGelu && spec.down.quantized()) {
    activation_ = Activation::kGeluTo8Bits;
  }
}

template <typename T>
void FeedForward::run(T* hidden, int64_t tokens) const {
  const int64_t D = up_.inputs();
  const int64_t ld = up_.outputs() + 16;  // a stride of whole pages would crowd a tile into few cache sets
  const auto outer = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{normalized(norms_, hidden + t.first * D, between), D, between.quantized};
  };
  const auto inner = [&](Range, const StageBuffers<T>& between) {
    return Operand<T>{between.inner, ld, between.quantized};
  };
  const int64_t quantized = std::max(up_.quantized_inputs(), down_.quantized_inputs());
  run_stages<T>(tokens, {.normalized = norms_.before ? D : 0, .inner = ld, .product = D, .quantized = quantized},
                {first_stage<T>(norms_, hidden, tokens, D),
                 quantize_stage<T>(up_, tokens, outer),
                 {up_.panels(), up_.flops(tokens) * (gate_ ? 2 : 1),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    const Operand<T> x = outer(t, between);
                    if (gate_) {
                      gate_->apply_gated(up_, x, t.size(), panels, activation_, between.inner, ld);
                    } else {
                      up_.apply(x, t.size(), panels, activation_, between.inner, ld);
                    }
                  }},
                 quantize_stage<T>(down_, tokens, inner),
                 {down_.panels(), down_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    down_.multiply(inner(t, between), t.size(), panels, between.product, D);
                  }},
                 last_stage<T>(down_, norms_, hidden, tokens)});
}

template void FeedForward::run(float*, int64_t) const;
template void FeedForward::run(bfloat16*, int64_t) const;

}  // namespace moco
