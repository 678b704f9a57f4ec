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

// Queries [first, last) of one row, for one head.
struct Task {
  int64_t row, head;
  Range queries;
};

// bias: of Head's constructor, none or one.
template <typename Head, typename T, typename... Bias>
void for_heads(T* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d, const KeyRange& keys,
               const Bias&... bias) {
  std::vector<Task> tasks;
  int64_t flops = 0;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    flops += 4 * tokens * tokens * heads * d;
    for (int64_t q = 0; q < tokens; q += kTaskQueries) {
      const Range queries{q, std::min(q + kTaskQueries, tokens)};
      for (int64_t head = 0; head < heads; ++head) tasks.push_back({row, head, queries});
    }
  }
  parallel_tasks(static_cast<int64_t>(tasks.size()), flops, [&](int64_t i) {
    const Timed timed(ProfileSection::kAttention);
    const Task& task = tasks[static_cast<size_t>(i)];
    const int64_t first = cu_seqlens[task.row] - cu_seqlens[0];
    const int64_t tokens = cu_seqlens[task.row + 1] - cu_seqlens[task.row];
    Head(qkv + (first * 3 * heads + task.head) * d, tokens, heads, d, keys, bias.of_head(task.head)...)
        .attend(task.queries);
  });
}

}  // namespace

template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d, const KeyRange& keys,
                      const PackedBias& bias) {
  std::visit(
      [&]<typename Bias>(const Bias& kind) {
        for (int64_t row = 0; row < rows; ++row) kind.check(cu_seqlens[row + 1] - cu_seqlens[row]);
        for_heads<DenseHead<T, typename Bias::OfHead>>(qkv, cu_seqlens, rows, heads, d, keys, kind);
      },
      bias);
}

void varlen_attention_int16(float* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d,
                            const KeyRange& keys) {
  for_heads<Int16Head>(qkv, cu_seqlens, rows, heads, d, keys);
}

template void varlen_attention(float*, const int32_t*, int64_t, int64_t, int64_t, const KeyRange&, const PackedBias&);
template void varlen_attention(bfloat16*, const int32_t*, int64_t, int64_t, int64_t, const KeyRange&,
                               const PackedBias&);

}  // namespace moco
