#include "transformer/self_attention.h"

#include "transformer/varlen_attention.h"

namespace moco {

namespace {
// So many tokens at a time go through attention: their queries, keys and values stay in the last-level cache.
constexpr int64_t kAttentionTokens = 1024;
}  // namespace

SelfAttention::SelfAttention(const LayerWeights& weights, int64_t heads, double eps, at::ScalarType dtype)
    : query_(weights.query),
      key_(weights.key),
      value_(weights.value),
      heads_(heads),
      D_(weights.query.inputs()),
      dtype_(dtype),
      output_(weights.attention_output, dtype, Linear::kFineDepth),
      norm_(weights.attention_norm, eps) {}

const Linear& SelfAttention::query_key_value() const {
  std::call_once(query_key_value_once_,
                 [&] { query_key_value_ = std::make_unique<Linear>(std::vector{query_, key_, value_}, dtype_); });
  return *query_key_value_;
}

template <typename T>
void SelfAttention::run(T* hidden, const std::vector<int32_t>& cu_seqlens) const {
  static thread_local Scratch scratch;
  const size_t rows = cu_seqlens.size() - 1;
  for (size_t first = 0; first < rows;) {
    size_t last = first + 1;
    while (last < rows && cu_seqlens[last + 1] - cu_seqlens[first] <= kAttentionTokens) ++last;
    const int64_t tokens = cu_seqlens[last] - cu_seqlens[first];
    T* x = hidden + cu_seqlens[first] * D_;
    T* qkv = scratch.of<T>(tokens * 3 * D_);
    parallel_apply(query_key_value(), x, D_, tokens, Activation::kNone, qkv, 3 * D_);
    varlen_attention(qkv, &cu_seqlens[first], static_cast<int64_t>(last - first), heads_, D_ / heads_);
    project_context(qkv, 3 * D_, x, tokens);
    first = last;
  }
}

template <typename T>
void SelfAttention::project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const {
  const auto operand = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{context + t.first * ld_context, ld_context, between.quantized};
  };
  run_stages<T>(tokens, {.product = D_, .quantized = output_.quantized_inputs()},
                {quantize_stage<T>(output_, tokens, operand),
                 {output_.panels(), output_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    output_.multiply(operand(t, between), t.size(), panels, between.product, D_);
                  }},
                 norm_stage<T>(output_, norm_, hidden)});
}

template void SelfAttention::run(float*, const std::vector<int32_t>&) const;
template void SelfAttention::run(bfloat16*, const std::vector<int32_t>&) const;
template void SelfAttention::project_context(const float*, int64_t, float*, int64_t) const;
template void SelfAttention::project_context(const bfloat16*, int64_t, bfloat16*, int64_t) const;

}  // namespace moco
