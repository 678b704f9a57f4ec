// A batch without padding: rows laid end to end.
#pragma once

#include <optional>
#include <vector>

#include "batch/token_ids.h"
#include "tensor/tensor.h"

namespace moco {

struct Runs;

// The token that stands for its row: the one that the classifier and exits read, where they read one alone.
enum class PooledToken { kFirst, kLast };

// All of it is on the CPU. Hidden states of another device stay there: moco_rt/architectures/device_batch.py.
class PackedBatch {
 public:
  // attention_mask: (B, S), integer or bool, right-padded: ones, then zeros, at least one 1 a row.
  explicit PackedBatch(const Tensor& attention_mask, PooledToken pooled = PooledToken::kFirst);
  // lengths: (B) integer, the tokens of each row, at least one.
  static PackedBatch of_lengths(const Tensor& lengths, PooledToken pooled = PooledToken::kFirst);

  int64_t rows() const { return static_cast<int64_t>(row_ids_.size()); }
  int64_t total_tokens() const { return cu_seqlens_.back(); }
  int64_t max_seqlen() const;
  PooledToken pooled() const { return pooled_; }
  // (rows + 1): the first token of each row, then T.
  const std::vector<int32_t>& cu_seqlens() const { return cu_seqlens_; }
  // (rows): the place of each row in the batch as it came in.
  const std::vector<int32_t>& row_ids() const { return row_ids_; }
  // Takes the ids by which tokens will be embedded, and the segments that they belong to. Both: (rows, at least S) or,
  // end to end, (T), of any integer type. They are kept, and compacted, until `release_ids`.
  void take_ids(const Tensor& input_ids, const std::optional<Tensor>& token_type_ids);
  const TokenIds& ids() const;
  TokenIds release_ids();

  bool has_hidden() const { return buffer_.defined(); }
  Tensor hidden() const;  // (T, D), a view

  // Room for hidden states (T, D), not initialised. The buffer of an earlier call is used again where it is large
  // enough.
  Tensor allocate(int64_t D, DType dtype);
  // A batch of the pooled token of every row, with the mean that was kept.
  PackedBatch cls() const;

  // padded (rows, S, D) -> hidden. The buffer of an earlier call is used again where it is large enough.
  void unpad(const Tensor& padded);
  // -> (rows, max_seqlen, D), zeros behind each row.
  Tensor pad() const;
  // -> (rows, max_seqlen) int64.
  Tensor attention_mask() const;

  // Keeps the rows' mean as it is now, for Feature::kClsMean: to be called before a layer whose exits read it.
  void keep_mean();
  const Tensor& kept_mean() const { return kept_mean_; }
  // -> (rows, tokens, D): the first `tokens` of each row, zeros behind them.
  Tensor padded(int64_t tokens) const;

  // Keeps the rows r with keep[r], in their order. Their tokens move forward in place.
  void compact(const std::vector<bool>& keep);
  // Keeps of each row a share of the tokens that it began with, rounded up, at most those that are left: the pooled
  // token, and those with the largest scores, of equal ones the first; they stay in their order. scores: (T)
  void keep_tokens(const float* scores, double share);
  // Keeps the rows that are also in `survivors`, a batch of the same rows after compaction.
  void keep_rows_of(const PackedBatch& survivors);

 private:
  int64_t length(size_t row) const { return cu_seqlens_[row + 1] - cu_seqlens_[row]; }
  void add_row(int32_t length);
  void move_ids(const Runs& runs);
  std::vector<int64_t> packed(const Tensor& ids) const;
  PackedBatch() = default;

  PooledToken pooled_ = PooledToken::kFirst;
  std::vector<int32_t> cu_seqlens_;
  std::vector<int32_t> row_ids_;
  std::vector<int32_t> first_lengths_;  // (rows), tokens that each row began with
  std::optional<TokenIds> ids_;
  Tensor buffer_;     // (capacity >= T, D); undefined before the first unpad
  Tensor kept_mean_;  // (rows, D) float32; undefined before the first keep_mean
};

}  // namespace moco
