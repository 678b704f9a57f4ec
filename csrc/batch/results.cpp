#include "batch/results.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "core/checks.h"
#include "core/profile.h"

namespace moco {

Results::Results(int64_t rows, int64_t classes, at::ScalarType dtype, at::Device device) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_VALUE(rows > 0 && classes > 0, "Results: rows and classes must be at least 1 (got ", rows, " and ",
                   classes, ")");
  MOCO_CHECK_FLOATING("Results: dtype", dtype);
  const auto options = at::TensorOptions().device(device);
  logits_ = at::zeros({rows, classes}, options.dtype(dtype));
  exit_site_ = at::full({rows}, -1, options.dtype(at::kLong));
  exit_rule_ = at::full({rows}, -1, options.dtype(at::kLong));
}

at::Tensor Results::index(const std::vector<int32_t>& row_ids) const {
  for (const int32_t row : row_ids) {
    MOCO_CHECK_VALUE(row < logits_.size(0), "Results: row_ids must be below ", logits_.size(0), " (got ", row, ")");
  }
  return at::tensor(row_ids).to(logits_.device(), at::kLong, /*non_blocking=*/true);
}

void Results::write_exits(const std::vector<int32_t>& row_ids, int64_t site, const std::vector<int64_t>& rule_ids,
                          const at::Tensor& logits) {
  const at::Tensor rows = index(row_ids);
  logits_.index_copy_(0, rows, logits.to(logits_.options(), /*non_blocking=*/true));
  exit_site_.index_fill_(0, rows, site);
  exit_rule_.index_copy_(0, rows, at::tensor(rule_ids).to(rows.device(), /*non_blocking=*/true));
}

void Results::write_last(const std::vector<int32_t>& row_ids, const at::Tensor& logits) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_SHAPE("write_last", logits, {static_cast<int64_t>(row_ids.size()), logits_.size(1)});
  MOCO_CHECK_DTYPE("write_last", logits, logits_.scalar_type());
  MOCO_CHECK_DEVICE("write_last", logits, logits_.device());
  if (logits.size(0) == logits_.size(0) && row_ids.back() < logits_.size(0)) {
    // None has left, so rows stand in their order: a copy, in a fifth of the time.
    logits_.copy_(logits, /*non_blocking=*/true);
  } else {
    logits_.index_copy_(0, index(row_ids), logits);
  }
}

}  // namespace moco
