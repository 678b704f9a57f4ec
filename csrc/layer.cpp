#include "layer.h"

#include <ATen/ops/equal.h>

#include <algorithm>
#include <cmath>

#include "attention.h"
#include "isa.h"
#include "profile.h"
#include "stages.h"

namespace moco {

namespace {
// So many tokens at a time go through attention: their queries, keys and values stay in the last-level cache.
constexpr int64_t kAttentionTokens = 1024;
// So many rows at a time are peeked: each takes heads x D values twice.
constexpr int64_t kPeekRows = 256;
}  // namespace

LayerNorm::LayerNorm(const Affine& weights, double eps)
    : weight_(weights.first.detach().to(at::kFloat).contiguous()),
      bias_(weights.second.detach().to(at::kFloat).contiguous()),
      eps_(static_cast<float>(eps)) {}

// The weights, if they fit each other.
static LayerWeights checked(LayerWeights weights) {
  const auto& [query, key, value, attention_output, attention_norm, intermediate, output, output_norm] = weights;
  const int64_t D = query.inputs();
  const int64_t F = intermediate.outputs();
  for (const LinearWeights* square : {&query, &key, &value, &attention_output}) check_linear(*square, D, D);
  check_linear(intermediate, F, D);
  check_linear(output, D, F);
  for (const Affine* norm : {&attention_norm, &output_norm}) check_affine(*norm, {D});
  for (const LinearWeights* other : {&key, &value}) {  // which read the same tokens, quantised once
    MOCO_CHECK_VALUE(
        other->quantized() == query.quantized() && (!query.quantized() || at::equal(other->smooth, query.smooth)),
        "Encoder: query, key and value must all be int8 with the same smooth, or none of them");
  }
  return weights;
}

Layer::Layer(LayerWeights weights, int64_t heads, Activation activation, double eps, at::ScalarType dtype)
    : weights_(checked(std::move(weights))),
      heads_(heads),
      D_(weights_.query.inputs()),
      activation_(activation),
      dtype_(dtype),
      attention_output_(weights_.attention_output, dtype, Linear::kFineDepth),
      intermediate_(linear(weights_.intermediate)),
      output_(linear(weights_.output)),
      attention_norm_(weights_.attention_norm, eps),
      output_norm_(weights_.output_norm, eps) {}

const Linear& Layer::query_key_value() const {
  std::call_once(query_key_value_once_, [&] {
    query_key_value_ = std::make_unique<Linear>(std::vector{weights_.query, weights_.key, weights_.value}, dtype_);
  });
  return *query_key_value_;
}

const Layer::Peek& Layer::peek_weights() const {
  std::call_once(peek_once_, [&] {
    const int64_t d = D_ / heads_;
    Peek peek;
    const auto fine = [&](const at::Tensor& weight, const at::Tensor& bias) {
      return Linear({weight, bias}, dtype_, Linear::kFineDepth);
    };
    peek.query = std::make_unique<Linear>(fine(weights_.query.dense(), weights_.query.bias));
    const at::Tensor key = weights_.key.dense();
    const at::Tensor value = weights_.value.dense();
    for (int64_t head = 0; head < heads_; ++head) {
      const auto rows_of_head = [&](const at::Tensor& all) { return all.narrow(0, head * d, d); };
      peek.key.push_back(fine(rows_of_head(key).t(), at::Tensor()));
      peek.value.push_back(fine(rows_of_head(value), rows_of_head(weights_.value.bias)));
    }
    peek_ = std::move(peek);
  });
  return peek_;
}

// x = LayerNorm(product + bias + x), what both sub-layers end in. x: (tokens, D)
template <typename T>
static Stage<T> norm_stage(const Linear& linear, const LayerNorm& norm, T* hidden) {
  return {{0, 1}, 0, [&linear, &norm, hidden](Range t, Range, Intermediate<T> between) {
            const Timed timed(Part::kNorms);
            const int64_t D = linear.outputs();
            T* x = hidden + t.first * D;
            hidden_kernels<T>().add_layer_norm(between.product, linear.bias(), x, norm.get(), t.size(), D, x);
          }};
}

template <typename T>
void Layer::attention(T* hidden, const std::vector<int32_t>& cu_seqlens) const {
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

// hidden = LayerNorm(context W_o^T + b_o + hidden)
template <typename T>
void Layer::project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const {
  const auto operand = [&](Range t, const Intermediate<T>& between) {
    return Operand<T>{context + t.first * ld_context, ld_context, between.quantized};
  };
  run_stages<T>(tokens, {.product = D_, .quantized = attention_output_.quantized_inputs()},
                {quantize_stage<T>(attention_output_, tokens, operand),
                 {attention_output_.panels(), attention_output_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    attention_output_.product(operand(t, between), t.size(), panels, between.product, D_);
                  }},
                 norm_stage<T>(attention_output_, attention_norm_, hidden)});
}

// hidden = LayerNorm(activation(hidden W_i^T + b_i) W_o^T + b_o + hidden)
template <typename T>
void Layer::feed_forward(T* hidden, int64_t tokens) const {
  const int64_t ld = intermediate_.outputs() + 16;  // a stride of whole pages would crowd a tile into few cache sets
  const auto outer = [&](Range t, const Intermediate<T>& between) {
    return Operand<T>{hidden + t.first * D_, D_, between.quantized};
  };
  const auto inner = [&](Range, const Intermediate<T>& between) {
    return Operand<T>{between.inner, ld, between.quantized};
  };
  const int64_t quantized = std::max(intermediate_.quantized_inputs(), output_.quantized_inputs());
  run_stages<T>(tokens, {.inner = ld, .product = D_, .quantized = quantized},
                {quantize_stage<T>(intermediate_, tokens, outer),
                 {intermediate_.panels(), intermediate_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    intermediate_.apply(outer(t, between), t.size(), panels, activation_, between.inner, ld);
                  }},
                 quantize_stage<T>(output_, tokens, inner),
                 {output_.panels(), output_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    output_.product(inner(t, between), t.size(), panels, between.product, D_);
                  }},
                 norm_stage<T>(output_, output_norm_, hidden)});
}

template <typename T>
void Layer::peek(const T* hidden, const std::vector<int32_t>& cu_seqlens, T* cls) const {
  const auto rows = static_cast<int64_t>(cu_seqlens.size()) - 1;
  for (int64_t row = 0; row < rows; row += kPeekRows) {
    peek_rows(hidden, &cu_seqlens[static_cast<size_t>(row)], std::min(kPeekRows, rows - row), cls + row * D_);
  }
}

template <typename T>
void Layer::peek_rows(const T* hidden, const int32_t* cu_seqlens, int64_t rows, T* cls) const {
  static thread_local Scratch query_scratch, key_scratch, mixed_scratch, context_scratch;
  const HiddenKernels<T>& kernels = hidden_kernels<T>();
  const Peek& peek = peek_weights();
  const int64_t d = D_ / heads_;
  const int64_t product_flops = 2 * rows * D_ * D_;

  T* query = query_scratch.of<T>(rows * D_);
  parallel_apply(*peek.query, cls, D_, rows, Activation::kNone, query, D_);

  float* keys = key_scratch.of<float>(rows * heads_ * D_);  // W_k^T q
  parallel_tasks(heads_, product_flops, [&](int64_t h) {
    peek.key[static_cast<size_t>(h)].product<T>({query + h * d, D_, {}}, rows, peek.key[0].panels(), keys + h * D_,
                                                heads_ * D_);
  });

  T* mixed = mixed_scratch.of<T>(rows * heads_ * D_);  // sum_t p[t] x[t]
  parallel_tasks(rows, 4 * heads_ * D_ * (cu_seqlens[rows] - cu_seqlens[0]), [&](int64_t row) {
    const Timed timed(Part::kPeek);
    static thread_local Scratch score_scratch;
    const T* x = hidden + cu_seqlens[row] * D_;
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    const int64_t ld = round_up(tokens, kKeyStep);
    float* scores = score_scratch.of<float>(heads_ * (ld + 1));
    float* inverse = scores + heads_ * ld;
    kernels.peek_scores(x, keys + row * heads_ * D_, tokens, D_, heads_, scores, ld);
    hidden_kernels<float>().softmax(scores, ld, 1.0F / std::sqrt(static_cast<float>(d)), heads_, tokens, scores, ld,
                                    inverse);
    kernels.peek_context(x, scores, ld, inverse, tokens, D_, heads_, mixed + row * heads_ * D_);
  });

  T* context = context_scratch.of<T>(rows * D_);
  parallel_tasks(heads_, product_flops, [&](int64_t h) {
    const Linear& value = peek.value[static_cast<size_t>(h)];
    value.apply<T>({mixed + h * D_, heads_ * D_, {}}, rows, value.panels(), Activation::kNone, context + h * d, D_);
  });
  project_context(context, D_, cls, rows);
}

template void Layer::attention(float*, const std::vector<int32_t>&) const;
template void Layer::attention(bfloat16*, const std::vector<int32_t>&) const;
template void Layer::feed_forward(float*, int64_t) const;
template void Layer::feed_forward(bfloat16*, int64_t) const;
template void Layer::peek(const float*, const std::vector<int32_t>&, float*) const;
template void Layer::peek(const bfloat16*, const std::vector<int32_t>&, bfloat16*) const;

}  // namespace moco
