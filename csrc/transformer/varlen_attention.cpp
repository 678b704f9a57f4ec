#include "transformer/varlen_attention.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "core/profile.h"
#include "transformer/dense_head.h"
#include "transformer/int16_head.h"

namespace moco {

namespace {

constexpr int64_t kTaskQueries = 128;  // long rows are split, so that no thread waits for the one that has them
static_assert(kTaskQueries % kQueryTile == 0);

// Queries [first, last) of one row, for the heads that share one of keys and values; received: where what they give of
// attention is noted, (heads, tokens).
struct Task {
  int64_t row, kv_head;
  Range queries;
  int64_t received;
};

// The sums over all tasks of a row, in their order, so that they do not depend on who ran them.
void add_up(const std::vector<Task>& tasks, const float* parts, const int32_t* cu_seqlens, int64_t shared_by,
            float* received) {
  for (const Task& task : tasks) {
    const int64_t tokens = cu_seqlens[task.row + 1] - cu_seqlens[task.row];
    float* own = received + (cu_seqlens[task.row] - cu_seqlens[0]);
    for (int64_t i = 0; i < shared_by; ++i) {
      const float* part = parts + task.received + i * tokens;
      for (int64_t t = 0; t < tokens; ++t) own[t] += part[t];
    }
  }
}

// bias: of Head's attend, none or one.
template <typename Head, typename T, typename... Bias>
void for_heads(T* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout, const KeyRange& keys,
               const QueryRange& queries, float* received, const Bias&... bias) {
  const auto [heads, kv_heads, d] = layout;
  const int64_t shared_by = heads / kv_heads;
  std::vector<Task> tasks;
  int64_t flops = 0;
  int64_t noted = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    const Range attending = queries.of(tokens);
    flops += 4 * attending.size() * tokens * heads * d;
    for (int64_t q = attending.first; q < attending.last; q += kTaskQueries) {
      const Range own{q, std::min(q + kTaskQueries, attending.last)};
      for (int64_t head = 0; head < kv_heads; ++head) {
        tasks.push_back({row, head, own, noted});
        noted += shared_by * tokens;
      }
    }
  }
  std::vector<float> parts(received == nullptr ? 0 : static_cast<size_t>(noted));
  parallel_tasks(static_cast<int64_t>(tasks.size()), flops, [&](int64_t i) {
    const Timed timed(ProfileSection::kAttention);
    const Task& task = tasks[static_cast<size_t>(i)];
    const int64_t first = cu_seqlens[task.row] - cu_seqlens[0];
    const int64_t tokens = cu_seqlens[task.row + 1] - cu_seqlens[task.row];
    T* row = qkv + first * layout.width();
    const T* key = row + (heads + task.kv_head) * d;
    Head shared(key, key + kv_heads * d, tokens, layout, keys);
    for (int64_t i = 0; i < shared_by; ++i) {
      const int64_t head = task.kv_head * shared_by + i;
      float* part = received == nullptr ? nullptr : parts.data() + task.received + i * tokens;
      shared.attend(row + head * d, task.queries, part, bias.of_head(head)...);
    }
  });
  if (received == nullptr) return;
  std::fill_n(received, cu_seqlens[rows] - cu_seqlens[0], 0.0F);
  add_up(tasks, parts.data(), cu_seqlens, shared_by, received);
}

}  // namespace

template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout, const KeyRange& keys,
                      const QueryRange& queries, const PackedBias& bias, float* received) {
  std::visit(
      [&](const auto& kind) {
        for (int64_t row = 0; row < rows; ++row) kind.check(cu_seqlens[row + 1] - cu_seqlens[row]);
        for_heads<DenseHead<T>>(qkv, cu_seqlens, rows, layout, keys, queries, received, kind);
      },
      bias);
}

void varlen_attention_int16(float* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout,
                            const KeyRange& keys, const QueryRange& queries, float* received) {
  for_heads<Int16Head>(qkv, cu_seqlens, rows, layout, keys, queries, received);
}

template void varlen_attention(float*, const int32_t*, int64_t, const HeadLayout&, const KeyRange&, const QueryRange&,
                               const PackedBias&, float*);
template void varlen_attention(bfloat16*, const int32_t*, int64_t, const HeadLayout&, const KeyRange&,
                               const QueryRange&, const PackedBias&, float*);

}  // namespace moco
