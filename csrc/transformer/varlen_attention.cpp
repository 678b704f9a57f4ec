#include "transformer/varlen_attention.h"

#include <algorithm>
#include <vector>

#include "core/profile.h"
#include "transformer/dense_head.h"
#include "transformer/int16_head.h"

namespace moco {

namespace {

constexpr int64_t kTaskQueries = 128;  // long rows are split, so that no thread waits for the one that has them
static_assert(kTaskQueries % kQueryTile == 0);

// Queries [first, last) of one row, for the heads that share one of keys and values.
struct Task {
  int64_t row, kv_head;
  Range queries;
};

template <typename Head, typename T>
void for_heads(T* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout, const KeyRange& keys) {
  const auto [heads, kv_heads, d] = layout;
  const int64_t shared_by = heads / kv_heads;
  std::vector<Task> tasks;
  int64_t flops = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    flops += 4 * tokens * tokens * heads * d;
    for (int64_t q = 0; q < tokens; q += kTaskQueries) {
      const Range queries{q, std::min(q + kTaskQueries, tokens)};
      for (int64_t head = 0; head < kv_heads; ++head) tasks.push_back({row, head, queries});
    }
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), flops, [&](int64_t i) {
    const Timed timed(ProfileSection::kAttention);
    const Task& task = tasks[static_cast<size_t>(i)];
    const int64_t first = cu_seqlens[task.row] - cu_seqlens[0];
    const int64_t tokens = cu_seqlens[task.row + 1] - cu_seqlens[task.row];
    T* row = qkv + first * layout.width();
    const T* key = row + (heads + task.kv_head) * d;
    Head head(key, key + kv_heads * d, tokens, layout, keys);
    for (int64_t i = 0; i < shared_by; ++i) head.attend(row + (task.kv_head * shared_by + i) * d, task.queries);
  });
}

}  // namespace

template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout, const KeyRange& keys) {
  for_heads<DenseHead<T>>(qkv, cu_seqlens, rows, layout, keys);
}

void varlen_attention_int16(float* qkv, const int32_t* cu_seqlens, int64_t rows, const HeadLayout& layout,
                            const KeyRange& keys) {
  for_heads<Int16Head>(qkv, cu_seqlens, rows, layout, keys);
}

template void varlen_attention(float*, const int32_t*, int64_t, const HeadLayout&, const KeyRange&);
template void varlen_attention(bfloat16*, const int32_t*, int64_t, const HeadLayout&, const KeyRange&);

}  // namespace moco
