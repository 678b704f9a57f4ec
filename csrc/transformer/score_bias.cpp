#include "transformer/score_bias.h"

#include <ATen/ops/arange.h>

#include <cmath>

#include "core/checks.h"

namespace moco {

namespace {

void check_row(int64_t tokens, int64_t positions) {
  MOCO_CHECK_INDEX(tokens <= positions, "position must be from 0 to ", positions - 1, " (got ", tokens - 1, ")");
}

// Vectors (any, D) by distance: of distance i - (half - 1) at place i, half being the positions rounded up, so that the
// distances of strips of kKeyStep tokens begin at a block. Behind the last distance there is anything.
//   buckets: (2 * positions - 1), which of the vectors, from -(positions - 1) on
at::Tensor by_distance(const at::Tensor& vectors, const at::Tensor& buckets, int64_t heads, int64_t d,
                       at::ScalarType dtype) {
  static_assert(kKeyStep == kBlock);
  const int64_t positions = (buckets.size(0) + 1) / 2;
  const int64_t half = round_up(positions, kBlock);
  const at::Tensor places = at::arange(positions - half, positions + half).clamp(0, buckets.size(0) - 1);
  const int64_t in_word = kWordBytes / static_cast<int64_t>(c10::elementSize(dtype));
  return vectors.detach()
      .to(dtype)
      .index_select(0, buckets.index_select(0, places))
      .view({2 * half / kBlock, kBlock, heads, d / in_word, in_word})
      .permute({2, 0, 3, 1, 4})
      .contiguous();
}

}  // namespace

DistanceTable::DistanceTable(const DistanceBias& spec, int64_t heads, int64_t d) {
  const at::Tensor& values = spec.values;
  MOCO_CHECK_VALUE(
      values.dim() == 2 && values.size(0) == heads && values.size(1) % 2 == 1 && values.scalar_type() == at::kFloat,
      "TransformerClassifier: a bias by distance must be float32 of shape (", heads, ", 2 * positions - 1) (got ",
      values.sizes(), ")");
  values_ = values.detach().mul(std::sqrt(static_cast<double>(d))).contiguous();
}

void DistanceTable::check(int64_t tokens) const { check_row(tokens, (values_.size(1) + 1) / 2); }

template <bool keys, bool queries>
DisentangledTables<keys, queries>::DisentangledTables(const DisentangledBias& spec, int64_t heads, int64_t d,
                                                      at::ScalarType dtype)
    : positions_((spec.buckets.size(0) + 1) / 2) {
  // Keys stand by key - query, the other way round.
  if constexpr (keys) keys_ = by_distance(*spec.keys, spec.buckets.flip(0), heads, d, dtype);
  if constexpr (queries) queries_ = by_distance(*spec.queries, spec.buckets, heads, d, dtype);
}

template <bool keys, bool queries>
void DisentangledTables<keys, queries>::check(int64_t tokens) const {
  check_row(tokens, positions_);
}

template <bool keys, bool queries>
DistanceVectors DisentangledTables<keys, queries>::vectors(const at::Tensor& table, int64_t head) const {
  if (!table.defined()) return {};
  const int64_t words = table.size(2);
  return {static_cast<const char*>(table.const_data_ptr()) + head * table.size(1) * words * kBlock * kWordBytes, words,
          round_up(positions_, kBlock) - 1};
}

template class DisentangledTables<true, false>;
template class DisentangledTables<false, true>;
template class DisentangledTables<true, true>;

PackedBias packed(const ScoreBias& spec, int64_t heads, int64_t d, at::ScalarType dtype) {
  if (const auto* by_distance = std::get_if<DistanceBias>(&spec)) return DistanceTable(*by_distance, heads, d);
  const auto* disentangled = std::get_if<DisentangledBias>(&spec);
  if (disentangled == nullptr) return NoBias();
  const auto& [buckets, keys, queries] = *disentangled;
  MOCO_CHECK_VALUE(buckets.dim() == 1 && buckets.size(0) % 2 == 1 && buckets.scalar_type() == at::kLong,
                   "TransformerClassifier: buckets must be int64 of shape (2 * positions - 1) (got ", buckets.sizes(),
                   ")");
  MOCO_CHECK_VALUE(keys || queries, "TransformerClassifier: a disentangled bias must have keys or queries (got none)");
  for (const std::optional<at::Tensor>& vectors : {keys, queries}) {
    MOCO_CHECK_VALUE(!vectors || (vectors->dim() == 2 && vectors->size(1) == heads * d),
                     "TransformerClassifier: keys and queries of a bias must have shape (any, ", heads * d, ")");
  }
  if (keys && queries) return DisentangledTables<true, true>(*disentangled, heads, d, dtype);
  if (keys) return DisentangledTables<true, false>(*disentangled, heads, d, dtype);
  return DisentangledTables<false, true>(*disentangled, heads, d, dtype);
}

}  // namespace moco
