#include "transformer/peek.h"

#include <algorithm>
#include <cmath>

#include "core/isa.h"
#include "core/profile.h"
#include "linear/stages.h"

namespace moco {

namespace {
// So many rows at a time are peeked at: each takes heads x D values twice.
constexpr int64_t kPeekRows = 256;
}  // namespace

bool Peek::can(const LayerSpec& spec) {
  const AttentionSpec& attention = spec.attention;
  return attention.kv_heads == attention.heads && !attention.query_norm && !attention.key_norm && !attention.rope &&
         attention.keys.full() && !std::holds_alternative<DisentangledBias>(attention.bias);
}

Peek::Peek(const AttentionSpec& spec, const SelfAttention& attention, DType dtype)
    : query_(spec.query),
      key_(spec.key),
      value_(spec.value),
      attention_(attention),
      heads_(spec.heads),
      d_(spec.query.outputs() / spec.heads),
      D_(spec.query.inputs()),
      dtype_(dtype) {}

const Peek::Packed& Peek::packed() const {
  std::call_once(once_, [&] {
    Packed packed;
    const auto fine = [&](const Tensor& weight, const Tensor& bias) {
      return Linear({weight, bias}, dtype_, {.depth = Linear::kFineDepth});
    };
    packed.query = std::make_unique<Linear>(fine(query_.dense(), query_.bias));
    const Tensor key = key_.dense();
    const Tensor value = value_.dense();
    for (int64_t head = 0; head < heads_; ++head) {
      const auto rows_of_head = [&](const Tensor& all) { return all.narrow(0, head * d_, d_); };
      packed.key.push_back(fine(rows_of_head(key).transposed(0, 1), Tensor()));
      packed.value.push_back(fine(rows_of_head(value), rows_of_head(value_.bias)));
    }
    packed_ = std::move(packed);
  });
  return packed_;
}

template <typename T>
void Peek::run(const T* hidden, const std::vector<int32_t>& cu_seqlens, T* cls) const {
  const auto rows = static_cast<int64_t>(cu_seqlens.size()) - 1;
  for (int64_t row = 0; row < rows; row += kPeekRows) {
    run_rows(hidden, &cu_seqlens[static_cast<size_t>(row)], std::min(kPeekRows, rows - row), cls + row * D_);
  }
}

template <typename T>
void Peek::run_rows(const T* hidden, const int32_t* cu_seqlens, int64_t rows, T* cls) const {
  static thread_local Scratch cls_scratch, query_scratch, key_scratch, mixed_scratch, context_scratch;
  const HiddenKernels<T>& kernels = hidden_kernels<T>();
  const Packed& weights = packed();
  const auto* bias = std::get_if<DistanceTable>(&attention_.bias());
  for (int64_t row = 0; bias != nullptr && row < rows; ++row) bias->check(cu_seqlens[row + 1] - cu_seqlens[row]);
  const int64_t ld_heads = heads_ * d_;
  const int64_t product_flops = 2 * rows * D_ * ld_heads;

  const std::optional<NormLayer>& norm = attention_.norms().before;
  // What attention reads of some tokens: themselves, or where a norm comes first what it makes of them.
  const auto read = [&](const T* tokens, int64_t count, Scratch& scratch) {
    if (!norm) return tokens;
    T* normalized = scratch.of<T>(count * D_);
    kernels.normalize(tokens, D_, norm->get(), count, D_, normalized, D_);
    return static_cast<const T*>(normalized);
  };

  T* query = query_scratch.of<T>(rows * ld_heads);
  parallel_apply(*weights.query, read(cls, rows, cls_scratch), D_, rows, Activation::kNone, query, ld_heads);

  float* keys = key_scratch.of<float>(rows * heads_ * D_);  // W_k^T q
  parallel_tasks(heads_, product_flops, [&](int64_t h) {
    weights.key[static_cast<size_t>(h)].multiply<T>({query + h * d_, ld_heads, {}}, rows, weights.key[0].panels(),
                                                    keys + h * D_, heads_ * D_);
  });

  T* mixed = mixed_scratch.of<T>(rows * heads_ * D_);  // sum_t p[t] x[t]
  parallel_tasks(rows, 4 * heads_ * D_ * (cu_seqlens[rows] - cu_seqlens[0]), [&](int64_t row) {
    const Timed timed(ProfileSection::kPeek);
    static thread_local Scratch score_scratch, token_scratch;
    const int64_t tokens = cu_seqlens[row + 1] - cu_seqlens[row];
    const T* x = read(hidden + cu_seqlens[row] * D_, tokens, token_scratch);
    const int64_t ld = round_up(tokens, kKeyStep);
    float* scores = score_scratch.of<float>(heads_ * (ld + 1));
    float* inverse = scores + heads_ * ld;
    kernels.peek_scores(x, keys + row * heads_ * D_, tokens, D_, heads_, scores, ld);
    if (bias != nullptr) {
      for (int64_t h = 0; h < heads_; ++h) {
        bias->of_head(h).add(ScoreTile<T>{{0, 1}, {0, tokens}, nullptr, nullptr, 0, 0, scores + h * ld, ld});
      }
    }
    hidden_kernels<float>().softmax(scores, ld, 1.0F / std::sqrt(static_cast<float>(d_)), heads_, tokens, scores, ld,
                                    inverse);
    kernels.peek_context(x, scores, ld, inverse, tokens, D_, heads_, mixed + row * heads_ * D_);
  });

  T* context = context_scratch.of<T>(rows * ld_heads);
  parallel_tasks(heads_, product_flops, [&](int64_t h) {
    const Linear& value = weights.value[static_cast<size_t>(h)];
    value.apply<T>({mixed + h * D_, heads_ * D_, {}}, rows, value.panels(), Activation::kNone, context + h * d_,
                   ld_heads);
  });
  attention_.project_context(context, ld_heads, cls, rows);
}

template void Peek::run(const float*, const std::vector<int32_t>&, float*) const;
template void Peek::run(const bfloat16*, const std::vector<int32_t>&, bfloat16*) const;

}  // namespace moco
