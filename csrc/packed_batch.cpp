#include "packed_batch.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "checks.h"
#include "isa.h"
#include "parallel.h"
#include "profile.h"

namespace moco {

namespace {

// Below this many bytes a second thread costs more than it copies.
constexpr int64_t kBytesPerThread = 1 << 18;

// Where runs of tokens go: for every run r and t < length[r], token source[r] + t of one tensor to token
// target[r] + t of another.
struct Runs {
  std::vector<int64_t> source, target, length;
};

// The tokens of the runs, one by one: (sum of length) int64.
at::Tensor token_index(const std::vector<int64_t>& start, const std::vector<int64_t>& length) {
  std::vector<int64_t> index;
  for (size_t r = 0; r < start.size(); ++r) {
    for (int64_t t = 0; t < length[r]; ++t) index.push_back(start[r] + t);
  }
  return at::tensor(index);
}

void move_on_cpu(const at::Tensor& from, const at::Tensor& to, const Runs& runs) {
  const auto* read = static_cast<const char*>(from.const_data_ptr());
  auto* write = static_cast<char*>(to.mutable_data_ptr());
  const int64_t count = static_cast<int64_t>(runs.length.size());
  const int64_t stride = from.size(1) * from.element_size();
  const int64_t bytes = stride * std::accumulate(runs.length.begin(), runs.length.end(), int64_t{0});
  // In place, runs must move one after the other. Letting each thread move its own columns instead was measured
  // (2026-11, 2 threads, 4 MB to 100 MB): no faster, the copy waits for memory.
  const int64_t grain = from.is_same(to) ? count : count * kBytesPerThread / (bytes + 1) + 1;
  parallel_ranges(0, count, grain, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin);
    kernels().copy_runs(read, write, &runs.source[first], &runs.target[first], &runs.length[first], end - begin,
                        stride);
  });
}

// from, to: (tokens, D) of one dtype, contiguous; may be one tensor if the runs move forward.
void move_tokens(const at::Tensor& from, const at::Tensor& to, const Runs& runs) {
  if (runs.length.empty()) return;
  if (from.is_cpu()) return move_on_cpu(from, to, runs);
  const at::Tensor source = token_index(runs.source, runs.length).to(from.device(), /*non_blocking=*/true);
  const at::Tensor target = token_index(runs.target, runs.length).to(from.device(), /*non_blocking=*/true);
  at::Tensor(to).index_copy_(0, target, from.index_select(0, source));
}

// out: (rows, D) float32
template <typename T>
void mean_on_cpu(const T* hidden, const std::vector<int32_t>& cu_seqlens, const at::Tensor& out) {
  const int64_t rows = out.size(0);
  const int64_t D = out.size(1);
  const int64_t bytes = cu_seqlens.back() * D * static_cast<int64_t>(sizeof(T));
  parallel_ranges(0, rows, rows * kBytesPerThread / (bytes + 1) + 1, [&](int64_t begin, int64_t end) {
    hidden_kernels<T>().mean_pool(hidden, &cu_seqlens[static_cast<size_t>(begin)], end - begin, D,
                                  out.mutable_data_ptr<float>() + begin * D);
  });
}

}  // namespace

Feature feature_from_name(const std::string& name) {
  if (name == "cls") return Feature::kCls;
  if (name == "mean") return Feature::kMean;
  if (name == "flat") return Feature::kFlat;
  if (name == "cls+mean") return Feature::kClsMean;
  MOCO_CHECK_VALUE(false, "feature must be one of cls, mean, flat, cls+mean (got ", name, ")");
}

PackedBatch::PackedBatch(const at::Tensor& attention_mask) {
  const Timed timed(Part::kExtension);
  MOCO_CHECK_VALUE(attention_mask.dim() == 2 && attention_mask.size(0) > 0 && attention_mask.size(1) > 0,
                   "attention_mask must have shape (rows, tokens) with at least one of each (got ",
                   attention_mask.sizes(), ")");
  MOCO_CHECK_TYPE(at::isIntegralType(attention_mask.scalar_type(), /*includeBool=*/true),
                  "attention_mask must be integer or bool (got ", name_of(attention_mask.scalar_type()), ")");
  MOCO_CHECK_VALUE(attention_mask.numel() <= std::numeric_limits<int32_t>::max(),
                   "attention_mask must have at most 2**31 - 1 tokens (got ", attention_mask.numel(), ")");
  const at::Tensor mask = attention_mask.to(at::kCPU, at::kLong).contiguous();
  const int64_t S = mask.size(1);
  cu_seqlens_.push_back(0);
  for (int64_t r = 0; r < mask.size(0); ++r) {
    const int64_t* row = mask.const_data_ptr<int64_t>() + r * S;
    int64_t length = 0;
    for (int64_t t = 0; t < S; ++t) {
      MOCO_CHECK_VALUE(row[t] == 0 || row[t] == 1, "attention_mask must hold only 0 and 1 (got ", row[t], " in row ", r,
                       ")");
      MOCO_CHECK_VALUE(row[t] == 0 || length == t, "attention_mask must be right-padded, ones before zeros (row ", r,
                       " is not; set tokenizer.padding_side = \"right\")");
      length += row[t];
    }
    MOCO_CHECK_VALUE(length > 0, "attention_mask must have a real token in every row (row ", r, " has none)");
    cu_seqlens_.push_back(cu_seqlens_.back() + static_cast<int32_t>(length));
    row_ids_.push_back(static_cast<int32_t>(r));
  }
}

int64_t PackedBatch::max_seqlen() const {
  int64_t longest = 0;
  for (size_t r = 0; r < row_ids_.size(); ++r) longest = std::max(longest, length(r));
  return longest;
}

at::Tensor PackedBatch::hidden() const {
  MOCO_CHECK_VALUE(buffer_.defined(), "PackedBatch: hidden states must be given by unpad first (got none)");
  return buffer_.narrow(0, 0, total_tokens());
}

at::Tensor PackedBatch::allocate(int64_t D, const at::TensorOptions& options) {
  if (!buffer_.defined() || buffer_.size(0) < total_tokens() || buffer_.size(1) != D ||
      buffer_.dtype() != options.dtype() || buffer_.device() != options.device()) {
    buffer_ = at::empty({total_tokens(), D}, options);
  }
  return hidden();
}

PackedBatch PackedBatch::cls() const {
  PackedBatch first;
  first.row_ids_ = row_ids_;
  first.cu_seqlens_.resize(cu_seqlens_.size());
  std::iota(first.cu_seqlens_.begin(), first.cu_seqlens_.end(), 0);
  first.buffer_ = padded(1).squeeze(1);
  first.kept_mean_ = kept_mean_;
  return first;
}

void PackedBatch::unpad(const at::Tensor& padded) {
  MOCO_CHECK_FLOATING("unpad: padded", padded.scalar_type());
  MOCO_CHECK_VALUE(
      padded.dim() == 3 && padded.size(0) == rows() && padded.size(1) >= max_seqlen() && padded.size(2) > 0,
      "unpad: padded must have shape (", rows(), ", at least ", max_seqlen(), ", at least 1) (got ", padded.sizes(),
      ")");
  const int64_t S = padded.size(1);
  const int64_t D = padded.size(2);
  allocate(D, padded.options());
  Runs runs{{}, {cu_seqlens_.begin(), cu_seqlens_.end() - 1}, {}};
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    runs.source.push_back(static_cast<int64_t>(r) * S);
    runs.length.push_back(length(r));
  }
  move_tokens(padded.contiguous().view({-1, D}), buffer_, runs);
}

at::Tensor PackedBatch::padded(int64_t tokens) const {
  const at::Tensor packed = hidden();
  const int64_t D = packed.size(1);
  const at::Tensor out = at::zeros({rows(), tokens, D}, packed.options());
  Runs runs{{cu_seqlens_.begin(), cu_seqlens_.end() - 1}, {}, {}};
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    runs.target.push_back(static_cast<int64_t>(r) * tokens);
    runs.length.push_back(std::min(length(r), tokens));
  }
  move_tokens(packed, out.view({-1, D}), runs);
  return out;
}

at::Tensor PackedBatch::pad() const { return padded(max_seqlen()); }

at::Tensor PackedBatch::attention_mask() const {
  const at::Tensor mask = at::zeros({rows(), max_seqlen()}, at::TensorOptions().dtype(at::kLong));
  for (size_t r = 0; r < row_ids_.size(); ++r) {
    int64_t* row = mask.mutable_data_ptr<int64_t>() + static_cast<int64_t>(r) * mask.size(1);
    std::fill_n(row, length(r), int64_t{1});
  }
  return mask.to(hidden().device(), /*non_blocking=*/true);
}

at::Tensor PackedBatch::pool(Feature feature, int64_t tokens) const {
  switch (feature) {
    case Feature::kCls:
      return padded(1).flatten(1).to(at::kFloat);
    case Feature::kMean:
      return mean();
    case Feature::kFlat:
      MOCO_CHECK_VALUE(tokens > 0, "pool: tokens must be at least 1 (got ", tokens, ")");
      return padded(tokens).flatten(1).to(at::kFloat);
    case Feature::kClsMean:
      MOCO_CHECK_VALUE(kept_mean_.defined(), "pool: cls+mean needs the mean of an earlier keep_mean (got none)");
      return at::cat({pool(Feature::kCls, 1), kept_mean_}, 1);
  }
  TORCH_INTERNAL_ASSERT(false, "unknown feature");
}

void PackedBatch::keep_mean() {
  const Timed extension(Part::kExtension);
  const Timed timed(Part::kExits);
  kept_mean_ = mean();
}

at::Tensor PackedBatch::mean() const {
  const at::Tensor tokens = hidden();
  if (!tokens.is_cpu()) {
    const at::Tensor lengths = at::tensor(cu_seqlens_).diff().to(tokens.device(), at::kLong, /*non_blocking=*/true);
    return at::segment_reduce(tokens.to(at::kFloat), "mean", lengths, /*indices=*/std::nullopt,
                              /*offsets=*/std::nullopt, /*axis=*/0,
                              /*unsafe=*/true);
  }
  const at::Tensor out = at::empty({rows(), tokens.size(1)}, tokens.options().dtype(at::kFloat));
  if (tokens.dtype() == at::kBFloat16) {
    mean_on_cpu(static_cast<const bfloat16*>(tokens.const_data_ptr()), cu_seqlens_, out);
  } else {
    mean_on_cpu(tokens.to(at::kFloat).const_data_ptr<float>(), cu_seqlens_, out);
  }
  return out;
}

void PackedBatch::compact(const std::vector<bool>& keep) {
  MOCO_CHECK_VALUE(keep.size() == row_ids_.size(), "compact: keep must have one value for each of the ", rows(),
                   " rows (got ", keep.size(), ")");
  Runs runs;
  std::vector<int32_t> cu_seqlens{0};
  std::vector<int32_t> row_ids;
  std::vector<int64_t> kept;
  for (size_t r = 0; r < keep.size(); ++r) {
    if (!keep[r]) continue;
    kept.push_back(static_cast<int64_t>(r));
    runs.source.push_back(cu_seqlens_[r]);
    runs.target.push_back(cu_seqlens.back());
    runs.length.push_back(length(r));
    cu_seqlens.push_back(cu_seqlens.back() + cu_seqlens_[r + 1] - cu_seqlens_[r]);
    row_ids.push_back(row_ids_[r]);
  }
  if (buffer_.defined()) move_tokens(buffer_, buffer_, runs);
  if (kept_mean_.defined())
    kept_mean_ = kept_mean_.index_select(0, at::tensor(kept).to(kept_mean_.device(), /*non_blocking=*/true));
  cu_seqlens_ = std::move(cu_seqlens);
  row_ids_ = std::move(row_ids);
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
