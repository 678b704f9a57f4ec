#include "transformer/self_attention.h"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <variant>

#include "core/checks.h"

namespace moco {

namespace {

// What a thread takes at a time: few enough tokens for its cache, enough to be worth reading all weights for.
constexpr int64_t kThreadTokens = 128;
// What the threads take together: queries, keys and values stay in the cache that they share.
constexpr int64_t kSharedTokens = 1024;
constexpr int64_t kChunksPerThread = 3;  // at least, for a thread that comes late to do less

// The rows in chunks, each of whole rows that end nearest to where a range of tokens does.
std::vector<Range> chunks_of_rows(const std::vector<int32_t>& cu_seqlens, const std::vector<Range>& ranges) {
  std::vector<Range> chunks;
  auto first = cu_seqlens.begin();
  for (const Range& range : ranges) {
    auto last = std::lower_bound(first, cu_seqlens.end(), range.last);
    if (last > first && range.last - *(last - 1) < *last - range.last) --last;
    if (last > first) chunks.push_back({first - cu_seqlens.begin(), last - cu_seqlens.begin()});
    first = last;
  }
  return chunks;
}

// The rows in chunks of about kSharedTokens.
std::vector<Range> shared_chunks(const std::vector<int32_t>& cu_seqlens) {
  return chunks_of_rows(cu_seqlens, shrinking_ranges(cu_seqlens.back(), kSharedTokens, kSharedTokens));
}

// The weights, if they fit each other.
const AttentionSpec& checked(const AttentionSpec& spec, DType dtype) {
  const int64_t D = spec.query.inputs();
  const int64_t all = spec.query.outputs();
  MOCO_CHECK_VALUE(spec.heads > 0 && all % spec.heads == 0,
                   "TransformerClassifier: heads must divide the queries' size ", all, " (got ", spec.heads, ")");
  MOCO_CHECK_VALUE(spec.kv_heads > 0 && spec.heads % spec.kv_heads == 0,
                   "TransformerClassifier: kv_heads must divide heads, ", spec.heads, " (got ", spec.kv_heads, ")");
  const int64_t d = all / spec.heads;
  for (const LinearWeights* other : {&spec.key, &spec.value}) {
    check_linear(*other, spec.kv_heads * d, D);
    check_same_tokens(spec.query, *other);
  }
  check_linear(spec.output, D, all);
  MOCO_CHECK_VALUE(dtype == DType::kFloat32 || d % 2 == 0, "TransformerClassifier: the size of a head must be even in ",
                   name_of(dtype), " (got ", d, ")");
  MOCO_CHECK_VALUE(spec.keep > 0 && spec.keep <= 1, "TransformerClassifier: keep must be above 0 and at most 1 (got ",
                   spec.keep, ")");
  if (spec.rope) {
    const auto& [cos, sin] = *spec.rope;
    MOCO_CHECK_VALUE(cos.dim() == 2 && 2 * cos.size(1) <= d && cos.sizes() == sin.sizes() && cos.is_contiguous() &&
                         sin.is_contiguous() && cos.dtype() == DType::kFloat32 && sin.dtype() == DType::kFloat32,
                     "TransformerClassifier: rope must have float32 cos and sin of shape (positions, at most ", d / 2,
                     ")");
  }
  return spec;
}

}  // namespace

SelfAttention::SelfAttention(const AttentionSpec& spec, const SubLayerNorms& norms, DType dtype)
    : query_key_value_({checked(spec, dtype).query, spec.key, spec.value}, dtype),
      query_({spec.query}, dtype),
      key_value_({spec.key, spec.value}, dtype),
      layout_{spec.heads, spec.kv_heads, spec.query.outputs() / spec.heads},
      D_(spec.query.inputs()),
      keys_(spec.keys),
      rope_(spec.rope),
      bias_(packed(spec.bias, layout_.heads, layout_.d, dtype)),
      keep_(spec.keep),
      int16_(spec.query.quantized() && layout_.d % 2 == 0 && std::holds_alternative<NoBias>(bias_)),
      output_(spec.output, dtype, {.depth = Linear::kFineDepth, .skip_zeros = true}),
      norms_(norms, D_) {
  if (spec.query_norm) query_norm_.emplace(*spec.query_norm, layout_.d);
  if (spec.key_norm) key_norm_.emplace(*spec.key_norm, layout_.d);
}

// Many rows: every thread takes a few of them through the whole sub-layer, and their queries, keys and values stay in
// its cache. Few rows, or one that is longer than a thread's share: the threads work on each step together.
template <typename T>
void SelfAttention::run(T* hidden, const std::vector<int32_t>& cu_seqlens, float* received) const {
  query_key_value_.get();  // before threads ask for it inside a loop
  const auto run_chunk = [&](Range rows) {
    const int32_t* start = &cu_seqlens[static_cast<size_t>(rows.first)];
    run_rows(hidden + *start * D_, start, rows.size(), received == nullptr ? nullptr : received + *start);
  };
  const std::vector<Range> chunks =
      chunks_of_rows(cu_seqlens, shrinking_ranges(cu_seqlens.back(), Linear::kTile, kThreadTokens));
  const auto count = static_cast<int64_t>(chunks.size());
  if (count < kChunksPerThread * loop_threads()) {
    for (const Range& rows : shared_chunks(cu_seqlens)) run_chunk(rows);
  } else {
    parallel_tasks(count, std::numeric_limits<int64_t>::max(),
                   [&](int64_t i) { run_chunk(chunks[static_cast<size_t>(i)]); });
  }
}

template <typename T>
void SelfAttention::run_rows(T* hidden, const int32_t* cu_seqlens, int64_t rows, float* received) const {
  static thread_local Scratch scratch;
  const int64_t tokens = cu_seqlens[rows] - cu_seqlens[0];
  T* qkv = scratch.of<T>(tokens * layout_.width());
  project(query_key_value_.get(), hidden, tokens, qkv, layout_.width());
  prepare(qkv, cu_seqlens, rows, {});
  attend(qkv, cu_seqlens, rows, {}, received);
  project_context(qkv, layout_.width(), hidden, tokens);
}

template <typename T>
void SelfAttention::run_pooled(const T* hidden, const std::vector<int32_t>& cu_seqlens, PooledToken pooled,
                               T* cls) const {
  static thread_local Scratch scratch, pooled_scratch;
  MOCO_CHECK_VALUE(pooled == PooledToken::kFirst || std::holds_alternative<NoBias>(bias_),
                   "peek: the pooled token must be the first where scores have a bias (got the last)");
  const int64_t ld = layout_.width();
  const int64_t size = layout_.queries();
  const QueryRange queries{pooled};
  for (const Range& chunk : shared_chunks(cu_seqlens)) {
    const int32_t* start = &cu_seqlens[static_cast<size_t>(chunk.first)];
    const int64_t rows = chunk.size();
    const int64_t tokens = start[rows] - start[0];
    T* own = cls + chunk.first * D_;
    T* qkv = scratch.of<T>(tokens * ld);
    T* one = pooled_scratch.of<T>(rows * size);  // a token's queries, then its context
    const auto in_row = [&](int64_t row) {
      return qkv + (start[row] - start[0] + queries.of(start[row + 1] - start[row]).first) * ld;
    };
    project(query_.get(), own, rows, one, size);
    project(key_value_.get(), hidden + *start * D_, tokens, qkv + size, ld);
    for (int64_t row = 0; row < rows; ++row) std::copy_n(one + row * size, size, in_row(row));
    prepare(qkv, start, rows, queries);
    attend(qkv, start, rows, queries);
    for (int64_t row = 0; row < rows; ++row) std::copy_n(in_row(row), size, one + row * size);
    project_context(one, size, own, rows);
  }
}

template <typename T>
void SelfAttention::project(const Linear& linear, const T* hidden, int64_t tokens, T* out, int64_t ld_out) const {
  const auto operand = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{normalized(norms_, hidden + t.first * D_, between), D_, between.prepared};
  };
  run_stages<T>(tokens, {.normalized = norms_.before ? D_ : 0, .prepared = linear.prepared_bytes()},
                {first_stage<T>(norms_, hidden, tokens, D_),
                 prepare_stage<T>(linear, tokens, operand),
                 {linear.panels(), linear.flops(tokens), [&](Range t, Range panels, StageBuffers<T> between) {
                    linear.apply(operand(t, between), t.size(), panels, Activation::kNone, out + t.first * ld_out,
                                 ld_out);
                  }}});
}

template <typename T>
void SelfAttention::prepare(T* qkv, const int32_t* cu_seqlens, int64_t rows, const QueryRange& queries) const {
  if (!query_norm_ && !key_norm_ && !rope_) return;
  const auto [heads, kv_heads, d] = layout_;
  for (int64_t row = 0; row < rows; ++row) {
    T* query = qkv + (cu_seqlens[row] - cu_seqlens[0]) * layout_.width();
    T* key = query + heads * d;
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    MOCO_CHECK_INDEX(!rope_ || tokens <= rope_->cos.size(0), "position must be from 0 to ", rope_->cos.size(0) - 1,
                     " (got ", tokens - 1, ")");
    const Range attending = queries.of(tokens);
    parallel_ranges(0, tokens, Linear::kTile, [&](int64_t begin, int64_t end) {
      prepare_heads(query, {std::max(begin, attending.first), std::min(end, attending.last)}, heads, query_norm_);
      prepare_heads(key, {begin, end}, kv_heads, key_norm_);
    });
  }
}

template <typename T>
void SelfAttention::prepare_heads(T* x, Range tokens, int64_t heads, const std::optional<NormLayer>& norm) const {
  const HiddenKernels<T>& kernels = hidden_kernels<T>();
  const int64_t ld = layout_.width();
  const int64_t d = layout_.d;
  if (tokens.size() <= 0) return;
  for (int64_t t = tokens.first; norm && t < tokens.last; ++t) {
    kernels.normalize(x + t * ld, d, norm->get(), heads, d, x + t * ld, d);
  }
  if (!rope_) return;
  const int64_t half = rope_->cos.size(1);
  kernels.rotate(x + tokens.first * ld, ld, rope_->cos.data<float>() + tokens.first * half,
                 rope_->sin.data<float>() + tokens.first * half, tokens.size(), heads, d, half);
}

template <typename T>
void SelfAttention::attend(T* qkv, const int32_t* cu_seqlens, int64_t rows, const QueryRange& queries,
                           float* received) const {
  if constexpr (std::is_same_v<T, float>) {
    if (int16_) return varlen_attention_int16(qkv, cu_seqlens, rows, layout_, keys_, queries, received);
  }
  varlen_attention(qkv, cu_seqlens, rows, layout_, keys_, queries, bias_, received);
}

template <typename T>
void SelfAttention::project_context(const T* context, int64_t ld_context, T* hidden, int64_t tokens) const {
  const auto operand = [&](Range t, const StageBuffers<T>& between) {
    return Operand<T>{context + t.first * ld_context, ld_context, between.prepared};
  };
  run_stages<T>(tokens, {.product = D_, .prepared = output_.prepared_bytes()},
                {prepare_stage<T>(output_, tokens, operand),
                 {output_.panels(), output_.flops(tokens),
                  [&](Range t, Range panels, StageBuffers<T> between) {
                    output_.multiply(operand(t, between), t.size(), panels, between.product, D_);
                  }},
                 last_stage<T>(output_, norms_, hidden, tokens)});
}

template void SelfAttention::run(float*, const std::vector<int32_t>&, float*) const;
template void SelfAttention::run(bfloat16*, const std::vector<int32_t>&, float*) const;
template void SelfAttention::run_pooled(const float*, const std::vector<int32_t>&, PooledToken, float*) const;
template void SelfAttention::run_pooled(const bfloat16*, const std::vector<int32_t>&, PooledToken, bfloat16*) const;
template void SelfAttention::project_context(const float*, int64_t, float*, int64_t) const;
template void SelfAttention::project_context(const bfloat16*, int64_t, bfloat16*, int64_t) const;

}  // namespace moco
