#include "layer.h"

#include <ATen/ops/cat.h>

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

Layer::Layer(LayerWeights weights, int64_t heads, Activation activation, double eps, at::ScalarType dtype)
    : weights_(std::move(weights)),
      heads_(heads),
      D_(weights_.query.first.size(1)),
      activation_(activation),
      dtype_(dtype),
      attention_output_(weights_.attention_output.first, weights_.attention_output.second, dtype, Linear::kFineDepth),
      intermediate_(linear(weights_.intermediate)),
      output_(linear(weights_.output)),
      attention_norm_(weights_.attention_norm, eps),
      output_norm_(weights_.output_norm, eps) {
  const auto& [query, key, value, attention_output, attention_norm, intermediate, output, output_norm] = weights_;
  const int64_t F = intermediate.first.size(0);
  for (const Affine* square : {&query, &key, &value, &attention_output}) check_affine(*square, {D_, D_});
  check_affine(intermediate, {F, D_});
  check_affine(output, {D_, F});
  for (const Affine* norm : {&attention_norm, &output_norm}) check_affine(*norm, {D_});
}

const Linear& Layer::query_key_value() const {
  std::call_once(query_key_value_once_, [&] {
    const LayerWeights& w = weights_;
    query_key_value_ = std::make_unique<Linear>(linear({at::cat({w.query.first, w.key.first, w.value.first}),
                                                        at::cat({w.query.second, w.key.second, w.value.second})}));
  });
  return *query_key_value_;
}

const Layer::Peek& Layer::peek_weights() const {
  std::call_once(peek_once_, [&] {
    const int64_t d = D_ / heads_;
    Peek peek;
    const auto fine = [&](const at::Tensor& weight, const at::Tensor& bias) {
      return Linear(weight, bias, dtype_, Linear::kFineDepth);
    };
    peek.query = std::make_unique<Linear>(fine(weights_.query.first, weights_.query.second));
    for (int64_t head = 0; head < heads_; ++head) {
      const auto rows_of_head = [&](const at::Tensor& all) { return all.narrow(0, head * d, d); };
      peek.key.push_back(fine(rows_of_head(weights_.key.first).t(), at::Tensor()));
      peek.value.push_back(fine(rows_of_head(weights_.value.first), rows_of_head(weights_.value.second)));
    }
    peek_ = std::move(peek);
  });
  return peek_;
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
  run_stages<T>(tokens, 0, D_,
                {{attention_output_.panels(), attention_output_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    attention_output_.product(context + t.first * ld_context, ld_context, t.size(), panels,
                                              between.product, D_);
                  }},
                 {{0, 1}, 0, [&](Range t, Range, Intermediate<T> between) {
                    const Timed timed(Part::kNorms);
                    T* x = hidden + t.first * D_;
                    hidden_kernels<T>().add_layer_norm(between.product, attention_output_.bias(), x,
                                                       attention_norm_.get(), t.size(), D_, x);
                  }}});
}

// hidden = LayerNorm(activation(hidden W_i^T + b_i) W_o^T + b_o + hidden)
template <typename T>
void Layer::feed_forward(T* hidden, int64_t tokens) const {
  const int64_t ld = intermediate_.outputs() + 16;  // a stride of whole pages would crowd a tile into few cache sets
  run_stages<T>(tokens, ld, D_,
                {{intermediate_.panels(), intermediate_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    intermediate_.apply(hidden + t.first * D_, D_, t.size(), panels, activation_, between.inner, ld);
                  }},
                 {output_.panels(), output_.flops(tokens),
                  [&](Range t, Range panels, Intermediate<T> between) {
                    output_.product(between.inner, ld, t.size(), panels, between.product, D_);
                  }},
                 {{0, 1}, 0, [&](Range t, Range, Intermediate<T> between) {
                    const Timed timed(Part::kNorms);
                    T* x = hidden + t.first * D_;
                    hidden_kernels<T>().add_layer_norm(between.product, output_.bias(), x, output_norm_.get(), t.size(),
                                                       D_, x);
                  }}});
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
    peek.key[static_cast<size_t>(h)].product(query + h * d, D_, rows, peek.key[0].panels(), keys + h * D_, heads_ * D_);
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
    value.apply(mixed + h * D_, heads_ * D_, rows, value.panels(), Activation::kNone, context + h * d, D_);
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
