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

FeedForward::FeedForward(const FeedForwardSpec& spec, const SubLayerNorms& norms, DType dtype)
    : activation_(activation_from_name(checked(spec).activation)),
      // A gate and what it opens read the same tokens, prepared once.
      up_(spec.up, dtype, {.skip_zeros = !spec.gate}),
      down_(spec.down, dtype, {.skip_zeros = true}),
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
    return Operand<T>{normalized(norms_, hidden + t.first * D, between), D, between.prepared};
  };
  const auto inner = [&](Range, const StageBuffers<T>& between) {
    return Operand<T>{between.inner, ld, between.prepared};
  };
  const int64_t prepared = std::max(up_.prepared_bytes(), down_.prepared_bytes());
  run_stages<T>(tokens, {.normalized = norms_.before ? D : 0, .inner = ld, .product = D, .prepared = prepared},
                {first_stage<T>(norms_, hidden, tokens, D),
                 prepare_stage<T>(up_, tokens, outer),
                 {up_.panels(), up_.flops(tokens) * (gate_ ? 2 : 1),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    const Operand<T> x = outer(t, between);
                    if (gate_) {
                      gate_->apply_gated(up_, x, t.size(), panels, activation_, between.inner, ld);
                    } else {
                      up_.apply(x, t.size(), panels, activation_, between.inner, ld);
                    }
                  }},
                 prepare_stage<T>(down_, tokens, inner),
                 {down_.panels(), down_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    down_.multiply(inner(t, between), t.size(), panels, between.product, D);
                  }},
                 last_stage<T>(down_, norms_, hidden, tokens)});
}

template void FeedForward::run(float*, int64_t) const;
template void FeedForward::run(bfloat16*, int64_t) const;

}  // namespace moco
