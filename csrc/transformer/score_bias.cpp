#include "transformer/score_bias.h"

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
Tensor by_distance(const Tensor& vectors, const std::vector<int64_t>& buckets, int64_t heads, DType dtype) {
  static_assert(kKeyStep == kBlock);
  const int64_t positions = (std::ssize(buckets) + 1) / 2;
  const int64_t half = round_up(positions, kBlock);
  const Tensor all = vectors.to(dtype);
  const int64_t D = all.size(1);
  const Tensor rows = Tensor::empty({2 * half, D}, dtype);
  for (int64_t i = 0; i < 2 * half; ++i) {
    const int64_t place = std::clamp<int64_t>(positions - half + i, 0, std::ssize(buckets) - 1);
    const int64_t vector = buckets[static_cast<size_t>(place)];
    MOCO_CHECK_INDEX(vector >= 0 && vector < all.size(0), "TransformerClassifier: buckets must be from 0 to ",
                     all.size(0) - 1, " (got ", vector, ")");
    copy(all.select(0, vector), rows.select(0, i));
  }
  const int64_t in_word = kWordBytes / element_size(dtype);
  // (blocks, kBlock, heads, words, inputs in a word) -> (heads, blocks, words, kBlock, inputs in a word)
  return rows.view({2 * half / kBlock, kBlock, heads, D / heads / in_word, in_word})
      .transposed(0, 2)
      .transposed(1, 2)
      .transposed(2, 3)
      .contiguous();
}

std::vector<int64_t> to_vector(const Tensor& buckets) {
  const Tensor values = buckets.contiguous();
  return {values.data<int64_t>(), values.data<int64_t>() + values.numel()};
}

}  // namespace

DistanceTable::DistanceTable(const DistanceBias& spec, int64_t heads, int64_t d) {
  const Tensor& values = spec.values;
  MOCO_CHECK_VALUE(
      values.dim() == 2 && values.size(0) == heads && values.size(1) % 2 == 1 && values.dtype() == DType::kFloat32,
      "TransformerClassifier: a bias by distance must be float32 of shape (", heads, ", 2 * positions - 1) (got ",
      values.sizes(), ")");
  values_ = values.clone();
  const auto root = static_cast<float>(std::sqrt(static_cast<double>(d)));
  for (int64_t i = 0; i < values_.numel(); ++i) values_.data<float>()[i] *= root;
}

void DistanceTable::check(int64_t tokens) const { check_row(tokens, (values_.size(1) + 1) / 2); }

template <bool keys, bool queries>
DisentangledTables<keys, queries>::DisentangledTables(const DisentangledBias& spec, int64_t heads, DType dtype)
    : positions_((spec.buckets.size(0) + 1) / 2) {
  std::vector<int64_t> buckets = to_vector(spec.buckets);
  if constexpr (queries) queries_ = by_distance(*spec.queries, buckets, heads, dtype);
  // Keys stand by key - query, the other way round.
  std::reverse(buckets.begin(), buckets.end());
  if constexpr (keys) keys_ = by_distance(*spec.keys, buckets, heads, dtype);
}

template <bool keys, bool queries>
void DisentangledTables<keys, queries>::check(int64_t tokens) const {
  check_row(tokens, positions_);
}

template <bool keys, bool queries>
DistanceVectors DisentangledTables<keys, queries>::vectors(const Tensor& table, int64_t head) const {
  if (!table.defined()) return {};
  const int64_t words = table.size(2);
  return {static_cast<const char*>(table.bytes()) + head * table.size(1) * words * kBlock * kWordBytes, words,
          round_up(positions_, kBlock) - 1};
}

template class DisentangledTables<true, false>;
template class DisentangledTables<false, true>;
template class DisentangledTables<true, true>;

PackedBias packed(const ScoreBias& spec, int64_t heads, int64_t d, DType dtype) {
  if (const auto* by_distance = std::get_if<DistanceBias>(&spec)) return DistanceTable(*by_distance, heads, d);
  const auto* disentangled = std::get_if<DisentangledBias>(&spec);
  if (disentangled == nullptr) return NoBias();
  const auto& [buckets, keys, queries] = *disentangled;
  MOCO_CHECK_VALUE(buckets.dim() == 1 && buckets.size(0) % 2 == 1 && buckets.dtype() == DType::kInt64,
                   "TransformerClassifier: buckets must be int64 of shape (2 * positions - 1) (got ", buckets.sizes(),
                   ")");
  MOCO_CHECK_VALUE(keys || queries, "TransformerClassifier: a disentangled bias must have keys or queries (got none)");
  for (const std::optional<Tensor>& vectors : {keys, queries}) {
    MOCO_CHECK_VALUE(!vectors || (vectors->dim() == 2 && vectors->size(1) == heads * d),
                     "TransformerClassifier: keys and queries of a bias must have shape (any, ", heads * d, ")");
  }
  if (keys && queries) return DisentangledTables<true, true>(*disentangled, heads, dtype);
  if (keys) return DisentangledTables<true, false>(*disentangled, heads, dtype);
  return DisentangledTables<false, true>(*disentangled, heads, dtype);
}

}  // namespace moco
