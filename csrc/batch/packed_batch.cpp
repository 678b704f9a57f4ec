#include "batch/packed_batch.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "batch/features.h"
#include "batch/runs.h"
#include "batch/shortening.h"
#include "core/checks.h"
#include "core/profile.h"

namespace moco {

namespace {

// The ids of the runs alone, which move forward.
void move_ids(std::vector<int64_t>& ids, const Runs& runs) {
  int64_t* const data = ids.data();
  int64_t* end = data;
  for (size_t r = 0; r < runs.length.size(); ++r) {
    end = std::copy_n(data + runs.source[r], runs.length[r], data + runs.target[r]);
  }
  ids.resize(static_cast<size_t>(end - data));
}

// x: (rows, size), contiguous.
Tensor rows_of(const Tensor& x, const std::vector<int64_t>& rows) {
  const int64_t size = x.size(1);
  const Tensor out = Tensor::empty({std::ssize(rows), size}, x.dtype());
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy_n(x.data<float>() + rows[r] * size, size, out.data<float>() + static_cast<int64_t>(r) * size);
  }
  return out;
}

}  // namespace

PackedBatch::PackedBatch(const Tensor& attention_mask, PooledToken pooled) : pooled_(pooled) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_VALUE(attention_mask.dim() == 2 && attention_mask.size(0) > 0 && attention_mask.size(1) > 0,
                   "attention_mask must have shape (rows, tokens) with at least one of each (got ",
                   attention_mask.sizes(), ")");
  MOCO_CHECK_TYPE(!is_floating(attention_mask.dtype()), "attention_mask must be integer or bool (got ",
                  name_of(attention_mask.dtype()), ")");
  MOCO_CHECK_VALUE(attention_mask.numel() <= std::numeric_limits<int32_t>::max(),
                   "attention_mask must have at most 2**31 - 1 tokens (got ", attention_mask.numel(), ")");
  const Tensor mask = attention_mask.to(DType::kInt64);
  const int64_t S = mask.size(1);
  cu_seqlens_.push_back(0);
  for (int64_t r = 0; r < mask.size(0); ++r) {
    const int64_t* row = mask.data<int64_t>() + r * S;
    int64_t length = 0;
    for (int64_t t = 0; t < S; ++t) {
      MOCO_CHECK_VALUE(row[t] == 0 || row[t] == 1, "attention_mask must hold only 0 and 1 (got ", row[t], " in row ", r,
                       ")");
      MOCO_CHECK_VALUE(row[t] == 0 || length == t, "attention_mask must be right-padded, ones before zeros (row ", r,
                       " is not; set tokenizer.padding_side = \"right\")");
      length += row[t];
    }
    MOCO_CHECK_VALUE(length > 0, "attention_mask must have a real token in every row (row ", r, " has none)");
    add_row(static_cast<int32_t>(length));
  }
}

PackedBatch PackedBatch::of_lengths(const Tensor& lengths, PooledToken pooled) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_VALUE(lengths.dim() == 1 && lengths.size(0) > 0,
                   "lengths must have shape (rows) with at least one row (got ", lengths.sizes(), ")");
  MOCO_CHECK_TYPE(!is_floating(lengths.dtype()) && lengths.dtype() != DType::kBool, "lengths must be integer (got ",
                  name_of(lengths.dtype()), ")");
  const Tensor host = lengths.to(DType::kInt64);
  PackedBatch batch;
  batch.pooled_ = pooled;
  batch.cu_seqlens_.push_back(0);
  for (int64_t r = 0; r < host.size(0); ++r) {
    const int64_t length = host.data<int64_t>()[r];
    MOCO_CHECK_VALUE(length > 0, "lengths must be at least 1 in every row (got ", length, " in row ", r, ")");
    MOCO_CHECK_VALUE(length <= std::numeric_limits<int32_t>::max() - batch.total_tokens(),
                     "lengths must add up to at most 2**31 - 1 tokens (got more by row ", r, ")");
    batch.add_row(static_cast<int32_t>(length));
  }
  return batch;
}

void PackedBatch::add_row(int32_t length) {
  cu_seqlens_.push_back(cu_seqlens_.back() + length);
  row_ids_.push_back(static_cast<int32_t>(row_ids_.size()));
  first_lengths_.push_back(length);
}

int64_t PackedBatch::max_seqlen() const {
  int64_t longest = 0;
  for (size_t r = 0; r < row_ids_.size(); ++r) longest = std::max(longest, length(r));
  return longest;
}

// ids (rows, S), or (T) as they are.
std::vector<int64_t> PackedBatch::packed(const Tensor& ids) const {
  const Tensor host = ids.to(DType::kInt64);
  const int64_t* from = host.data<int64_t>();
  if (host.dim() == 1) return {from, from + host.numel()};
  std::vector<int64_t> out;
  out.reserve(static_cast<size_t>(total_tokens()));
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    const int64_t* row = from + static_cast<int64_t>(r) * host.size(1);
    out.insert(out.end(), row, row + length(r));
  }
  return out;
}

void PackedBatch::take_ids(const Tensor& input_ids, const std::optional<Tensor>& token_type_ids) {
  const Timed timed(ProfileSection::kExtension);
  const bool end_to_end = input_ids.dim() == 1 && input_ids.size(0) == total_tokens();
  MOCO_CHECK_VALUE(
      end_to_end || (input_ids.dim() == 2 && input_ids.size(0) == rows() && input_ids.size(1) >= max_seqlen()),
      "take_ids: input_ids must have shape (", rows(), ", at least ", max_seqlen(), ") or (", total_tokens(), ") (got ",
      input_ids.sizes(), ")");
  MOCO_CHECK_TYPE(!is_floating(input_ids.dtype()), "take_ids: input_ids must be integer (got ",
                  name_of(input_ids.dtype()), ")");
  MOCO_CHECK_TYPE(!token_type_ids || !is_floating(token_type_ids->dtype()),
                  "take_ids: token_type_ids must be integer (got ",
                  token_type_ids ? name_of(token_type_ids->dtype()) : "", ")");
  MOCO_CHECK_VALUE(!token_type_ids || token_type_ids->sizes() == input_ids.sizes(),
                   "take_ids: token_type_ids must have shape ", input_ids.sizes(), " like input_ids (got ",
                   token_type_ids->sizes(), ")");
  ids_ = TokenIds{packed(input_ids), token_type_ids ? packed(*token_type_ids) : std::vector<int64_t>{}};
}

const TokenIds& PackedBatch::ids() const {
  MOCO_CHECK_VALUE(ids_, "PackedBatch: ids must be given by take_ids first (got none)");
  return *ids_;
}

TokenIds PackedBatch::release_ids() {
  ids();
  return *std::exchange(ids_, std::nullopt);
}

Tensor PackedBatch::hidden() const {
  MOCO_CHECK_VALUE(buffer_.defined(), "PackedBatch: hidden states must be given by unpad first (got none)");
  return buffer_.narrow(0, 0, total_tokens());
}

Tensor PackedBatch::allocate(int64_t D, DType dtype) {
  if (!buffer_.defined() || buffer_.size(0) < total_tokens() || buffer_.size(1) != D || buffer_.dtype() != dtype) {
    buffer_ = Tensor::empty({total_tokens(), D}, dtype);
  }
  return hidden();
}

PackedBatch PackedBatch::cls() const {
  const Tensor tokens = hidden();
  PackedBatch pooled;
  pooled.row_ids_ = row_ids_;
  pooled.first_lengths_ = first_lengths_;
  pooled.cu_seqlens_.resize(cu_seqlens_.size());
  std::iota(pooled.cu_seqlens_.begin(), pooled.cu_seqlens_.end(), 0);
  Runs runs;
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    runs.source.push_back(pooled_ == PooledToken::kFirst ? cu_seqlens_[r] : cu_seqlens_[r + 1] - 1);
    runs.target.push_back(static_cast<int64_t>(r));
    runs.length.push_back(1);
  }
  move_tokens(tokens, pooled.allocate(tokens.size(1), tokens.dtype()), runs);
  pooled.kept_mean_ = kept_mean_;
  return pooled;
}

void PackedBatch::unpad(const Tensor& padded) {
  MOCO_CHECK_FLOATING("unpad: padded", padded.dtype());
  MOCO_CHECK_VALUE(
      padded.dim() == 3 && padded.size(0) == rows() && padded.size(1) >= max_seqlen() && padded.size(2) > 0,
      "unpad: padded must have shape (", rows(), ", at least ", max_seqlen(), ", at least 1) (got ", padded.sizes(),
      ")");
  const int64_t S = padded.size(1);
  const int64_t D = padded.size(2);
  allocate(D, padded.dtype());
  Runs runs{{}, {cu_seqlens_.begin(), cu_seqlens_.end() - 1}, {}};
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    runs.source.push_back(static_cast<int64_t>(r) * S);
    runs.length.push_back(length(r));
  }
  move_tokens(padded.contiguous().view({padded.size(0) * S, D}), buffer_, runs);
}

Tensor PackedBatch::padded(int64_t tokens) const {
  const Tensor packed = hidden();
  const int64_t D = packed.size(1);
  const Tensor out = Tensor::zeros({rows(), tokens, D}, packed.dtype());
  Runs runs{{cu_seqlens_.begin(), cu_seqlens_.end() - 1}, {}, {}};
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    runs.target.push_back(static_cast<int64_t>(r) * tokens);
    runs.length.push_back(std::min(length(r), tokens));
  }
  move_tokens(packed, out.view({rows() * tokens, D}), runs);
  return out;
}

Tensor PackedBatch::pad() const { return padded(max_seqlen()); }

Tensor PackedBatch::attention_mask() const {
  const Tensor mask = Tensor::zeros({rows(), max_seqlen()}, DType::kInt64);
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    int64_t* row = mask.data<int64_t>() + static_cast<int64_t>(r) * mask.size(1);
    std::fill_n(row, length(r), int64_t{1});
  }
  return mask;
}

void PackedBatch::keep_mean() {
  const Timed extension(ProfileSection::kExtension);
  const Timed timed(ProfileSection::kExits);
  kept_mean_ = mean_of_rows(hidden(), cu_seqlens_);
}

void PackedBatch::move_ids(const Runs& runs) {
  if (!ids_) return;
  moco::move_ids(ids_->word, runs);
  if (!ids_->type.empty()) moco::move_ids(ids_->type, runs);
}

void PackedBatch::compact(const std::vector<bool>& keep) {
  MOCO_CHECK_VALUE(keep.size() == row_ids_.size(), "compact: keep must have one value for each of the ", rows(),
                   " rows (got ", keep.size(), ")");
  Runs runs;
  std::vector<int32_t> cu_seqlens{0};
  std::vector<int32_t> row_ids, first_lengths;
  std::vector<int64_t> kept;
  for (size_t r = 0; r < keep.size(); ++r) {
    if (!keep[r]) continue;
    kept.push_back(static_cast<int64_t>(r));
    runs.source.push_back(cu_seqlens_[r]);
    runs.target.push_back(cu_seqlens.back());
    runs.length.push_back(length(r));
    cu_seqlens.push_back(cu_seqlens.back() + cu_seqlens_[r + 1] - cu_seqlens_[r]);
    row_ids.push_back(row_ids_[r]);
    first_lengths.push_back(first_lengths_[r]);
  }
  if (buffer_.defined()) move_tokens(buffer_, buffer_, runs);
  move_ids(runs);
  if (kept_mean_.defined()) kept_mean_ = rows_of(kept_mean_, kept);
  cu_seqlens_ = std::move(cu_seqlens);
  row_ids_ = std::move(row_ids);
  first_lengths_ = std::move(first_lengths);
}

void PackedBatch::keep_tokens(const float* scores, double share) {
  Runs runs;
  std::vector<int32_t> cu_seqlens{0};
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    const int64_t tokens = length(r);
    const int64_t count = tokens_to_keep(first_lengths_[r], share, tokens);
    const int64_t pooled = pooled_ == PooledToken::kFirst ? 0 : tokens - 1;
    for (const int32_t place : best_tokens(scores + cu_seqlens_[r], tokens, count, pooled)) {
      const int64_t token = cu_seqlens_[r] + place;
      if (!runs.source.empty() && runs.source.back() + runs.length.back() == token) {
        ++runs.length.back();  // tokens side by side move as one
        continue;
      }
      runs.source.push_back(token);
      runs.target.push_back(runs.target.empty() ? 0 : runs.target.back() + runs.length.back());
      runs.length.push_back(1);
    }
    cu_seqlens.push_back(cu_seqlens.back() + static_cast<int32_t>(count));
  }
  move_tokens(buffer_, buffer_, runs);
  move_ids(runs);
  cu_seqlens_ = std::move(cu_seqlens);
}

void PackedBatch::keep_rows_of(const PackedBatch& survivors) {
  if (survivors.rows() == rows()) return;
  std::vector<bool> keep;
  auto next = survivors.row_ids_.begin();
  for (const int32_t row : row_ids_) {
    keep.push_back(next != survivors.row_ids_.end() && *next == row);
    if (keep.back()) ++next;
  }
  MOCO_CHECK_VALUE(next == survivors.row_ids_.end(),
                   "keep_rows_of: survivors must be rows of this batch, in its order");
  compact(keep);
}

}  // namespace moco
