#include "exits/bag_of_tokens.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/checks.h"
#include "core/parallel.h"

namespace moco {

namespace {

// Below this many tokens a second thread costs more than it adds.
constexpr int64_t kTokensPerThread = 4096;

constexpr bool is_power_of_two(int64_t x) { return x > 0 && (x & (x - 1)) == 0; }

uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccd;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53;
  return x ^ (x >> 33);
}

// f(bucket) for every n-gram of a row; mask: buckets - 1.
template <typename F>
void for_ngrams(const int64_t* ids, int64_t tokens, uint64_t mask, const F& f) {
  for (int64_t t = 0; t < tokens; ++t) {
    const auto id = static_cast<uint64_t>(ids[t]);
    f(mixed(id) & mask);
    if (t > 0) f(mixed(((static_cast<uint64_t>(ids[t - 1]) + 1) << 32) | id) & mask);
  }
}

}  // namespace

std::vector<int64_t> ngram_buckets(const PackedBatch& batch, int64_t buckets) {
  MOCO_CHECK_VALUE(is_power_of_two(buckets), "ngram_buckets: buckets must be a power of two (got ", buckets, ")");
  const std::vector<int32_t>& cu_seqlens = batch.cu_seqlens();
  const int64_t* ids = batch.ids().word.data();
  std::vector<int64_t> out;
  out.reserve(2 * batch.ids().word.size());
  for (size_t r = 0; r + 1 < cu_seqlens.size(); ++r) {
    for_ngrams(ids + cu_seqlens[r], cu_seqlens[r + 1] - cu_seqlens[r], static_cast<uint64_t>(buckets - 1),
               [&](uint64_t bucket) { out.push_back(static_cast<int64_t>(bucket)); });
  }
  return out;
}

BagOfTokens::BagOfTokens(const Tensor& table, const Tensor& bias, const std::string& score, double temperature,
                         std::vector<double> levels)
    : scoring_("BagOfTokens", score, temperature, std::move(levels)) {
  MOCO_CHECK_DTYPE("BagOfTokens", table, DType::kFloat32);
  MOCO_CHECK_DTYPE("BagOfTokens", bias, DType::kFloat32);
  const int64_t fewest = is_label() ? 2 : 1;
  MOCO_CHECK_VALUE(table.dim() == 2 && table.size(1) >= fewest && is_power_of_two(table.size(0)),
                   "BagOfTokens: table must have shape (a power of two, at least ", fewest, ") (got ", table.sizes(),
                   ")");
  MOCO_CHECK_SHAPE("BagOfTokens", bias, {table.size(1)});
  scoring_.check("BagOfTokens", table.size(1));
  // Copied: a bag stays what it was when it was made, whatever becomes of the caller's memory.
  table_ = table.clone();
  bias_ = bias.clone();
}

// outputs: (outputs), written. Sums go along the row, so that its bits depend on nothing else.
void BagOfTokens::add_row(const int64_t* ids, int64_t tokens, float* outputs) const {
  const int64_t C = this->outputs();
  const auto* table = table_.data<float>();
  std::fill_n(outputs, C, 0.0F);
  for_ngrams(ids, tokens, static_cast<uint64_t>(table_.size(0) - 1), [&](uint64_t bucket) {
    const float* of_ngram = table + static_cast<int64_t>(bucket) * C;
    for (int64_t c = 0; c < C; ++c) outputs[c] += of_ngram[c];
  });
  const float root = std::sqrt(static_cast<float>(2 * tokens - 1));
  const auto* bias = bias_.data<float>();
  for (int64_t c = 0; c < C; ++c) outputs[c] = bias[c] + outputs[c] / root;
}

Answers BagOfTokens::answer(const PackedBatch& batch) const {
  const int64_t C = outputs();
  const std::vector<int32_t>& cu_seqlens = batch.cu_seqlens();
  const int64_t* ids = batch.ids().word.data();
  const Tensor all = Tensor::empty({batch.rows(), C}, table_.dtype());
  auto* out = all.data<float>();
  const int64_t grain = batch.rows() * kTokensPerThread / (batch.total_tokens() + 1) + 1;
  parallel_ranges(0, batch.rows(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const auto r = static_cast<size_t>(row);
      add_row(ids + cu_seqlens[r], cu_seqlens[r + 1] - cu_seqlens[r], out + row * C);
    }
  });
  return scoring_.answer(all);
}

}  // namespace moco
