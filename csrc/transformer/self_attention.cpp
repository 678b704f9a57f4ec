#include "transformer/self_attention.h"

#include <limits>
#include <type_traits>

#include "transformer/varlen_attention.h"

namespace moco {

namespace {

// What a thread takes at a time: few enough tokens for its cache, enough to be worth reading all weights for.
constexpr int64_t kThreadTokens = 128;
// What the threads take together: queries, keys and values stay in the cache that they share.
constexpr int64_t kSharedTokens = 1024;
constexpr int64_t kChunksPerThread = 3;  // at least, for a thread that comes late to do less

// The rows in chunks of so many tokens at most, or of one row.
std::vector<Range> chunks_of_rows(const std::vector<int32_t>& cu_seqlens, int64_t tokens) {
  std::vector<Range> chunks;
  const auto rows = static_cast<int64_t>(cu_seqlens.size()) - 1;
  const auto start = [&](int64_t row) { return cu_seqlens[static_cast<size_t>(row)]; };
  for (int64_t first = 0; first < rows; first = chunks.back().last) {
    int64_t last = first + 1;
    while (last < rows && start(last + 1) - start(first) <= tokens) ++last;
    chunks.push_back({first, last});
  }
  return chunks;
}

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

// Many rows: every thread takes a few of them through the whole sub-layer, and their queries, keys and values stay in
// its cache. Few rows, or one that is longer than a thread's share: the threads work on each step together.
template <typename T>
void SelfAttention::run(T* hidden, const std::vector<int32_t>& cu_seqlens) const {
  query_key_value();  // before threads ask for it inside a loop
  const auto run_chunk = [&](Range rows) {
    const int32_t* start = &cu_seqlens[static_cast<size_t>(rows.first)];
    run_rows(hidden + *start * D_, start, rows.size());
  };
  const std::vector<Range> chunks = chunks_of_rows(cu_seqlens, kThreadTokens);
  const auto count = static_cast<int64_t>(chunks.size());
  if (count < kChunksPerThread * loop_threads()) {
    for (const Range& rows : chunks_of_rows(cu_seqlens, kSharedTokens)) run_chunk(rows);
  } else {
    parallel_tasks(count, std::numeric_limits<int64_t>::max(),
                   [&](int64_t i) { run_chunk(chunks[static_cast<size_t>(i)]); });
  }
}

template <typename T>
void SelfAttention::run_rows(T* hidden, const int32_t* cu_seqlens, int64_t rows) const {
  static thread_local Scratch scratch;
  const int64_t tokens = cu_seqlens[rows] - cu_seqlens[0];
  T* qkv = scratch.of<T>(tokens * 3 * D_);
  parallel_apply(query_key_value(), hidden, D_, tokens, Activation::kNone, qkv, 3 * D_);
  attend(qkv, cu_seqlens, rows);
  project_context(qkv, 3 * D_, hidden, tokens);
}

template <typename T>
void SelfAttention::attend(T* qkv, const int32_t* cu_seqlens, int64_t rows) const {
  const int64_t d = D_ / heads_;
  if constexpr (std::is_same_v<T, float>) {
    if (query_.quantized() && d % 2 == 0) return varlen_attention_int16(qkv, cu_seqlens, rows, heads_, d);
  }
  varlen_attention(qkv, cu_seqlens, rows, heads_, d);
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
