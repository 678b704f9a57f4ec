#include "transformer/varlen_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/isa.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "core/scratch.h"
#include "linear/products.h"

namespace moco {

namespace {

constexpr int64_t kQueries = 64;       // a tile of queries: its scores against all keys stay in the cache
constexpr int64_t kTaskQueries = 128;  // long rows are split, so that no thread waits for the one that has them

// Queries [first, last) of one row, for one head.
struct Task {
  int64_t row, head;
  Range queries;
};

template <typename T>
class RowHead {
 public:
  // qkv: the row's first token, at the head.
  RowHead(T* qkv, int64_t tokens, int64_t heads, int64_t d)
      : queries_(qkv), tokens_(tokens), ld_(3 * heads * d), d_(d), padded_(round_up(tokens, kKeyStep)) {
    static thread_local Scratch keys, values, scores, weights, context;
    keys_ = keys.of<T>(round_up(tokens, kKeyBlock) * d);
    values_ = values.of<T>(padded_ * d + kBlock * kPerWord);  // products read whole blocks
    // The same for most rows, because oneDNN compiles a kernel for every stride; not a power of two, which would crowd
    // the tile into few sets of the cache.
    ld_scores_ = round_up(padded_, 512) + kKeyStep;
    scores_ = scores.of<float>(kQueries * ld_scores_);
    if constexpr (std::is_same_v<T, float>) {
      weights_ = scores_;
    } else {
      weights_ = weights.of<T>(kQueries * ld_scores_);
    }
    ld_context_ = round_up(d, kBlock);
    context_ = context.of<float>(kQueries * ld_context_);
    kernels().pack_keys(reinterpret_cast<const uint32_t*>(qkv + heads * d), ld_ / kPerWord, tokens, d / kPerWord,
                        reinterpret_cast<uint32_t*>(keys_));
    hidden_kernels<T>().pack_values(qkv + 2 * heads * d, ld_, tokens, d, values_);
  }

  void attend(Range queries) {
    for (int64_t q = queries.first; q < queries.last; q += kQueries) {
      attend_tile(queries_ + q * ld_, std::min(kQueries, queries.last - q));
    }
  }

 private:
  // f(first key, keys rounded up) for each block of keys.
  template <typename F>
  void for_blocks(const F& f) const {
    for (int64_t k = 0; k < tokens_; k += kKeyBlock) f(k, std::min(kKeyBlock, padded_ - k));
  }

  void attend_tile(T* queries, int64_t count) {
    const HiddenKernels<T>& kernels = hidden_kernels<T>();
    float inverse[kQueries];
    for_blocks([&](int64_t k, int64_t keys) {
      multiply(count, keys, d_, queries, ld_, {keys_ + k * d_, kKeyBlock, kBlock}, scores_ + k, ld_scores_, false);
    });
    const float scale = 1.0F / std::sqrt(static_cast<float>(d_));
    kernels.softmax(scores_, ld_scores_, scale, count, tokens_, weights_, ld_scores_, inverse);
    for_blocks([&](int64_t k, int64_t keys) {
      multiply(count, d_, keys, weights_ + k, ld_scores_, {values_ + k * d_, d_, kBlock}, context_, ld_context_, k > 0);
    });
    kernels.scale_rows(context_, ld_context_, inverse, count, d_, queries, ld_);
  }

  static constexpr int64_t kPerWord = kWordBytes / static_cast<int64_t>(sizeof(T));  // inputs in a word

  T* queries_;
  int64_t tokens_, ld_, d_, padded_, ld_scores_, ld_context_;
  T *keys_, *values_, *weights_;
  float *scores_, *context_;
};

}  // namespace

template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d) {
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
    RowHead<T>(qkv + (first * 3 * heads + task.head) * d, tokens, heads, d).attend(task.queries);
  });
}

template void varlen_attention(float*, const int32_t*, int64_t, int64_t, int64_t);
template void varlen_attention(bfloat16*, const int32_t*, int64_t, int64_t, int64_t);

}  // namespace moco
