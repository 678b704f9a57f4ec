#include "batch/results.h"

#include <cstring>

#include "core/checks.h"
#include "core/profile.h"

namespace moco {

namespace {

Tensor not_yet(int64_t rows) { return Tensor::of(std::vector<int64_t>(static_cast<size_t>(rows), -1)); }

// Row k of `from` becomes row rows[k] of `to`; both are of one dtype and size.
void write_rows(const Tensor& from, const std::vector<int32_t>& rows, const Tensor& to) {
  const Tensor lines = from.contiguous();
  const int64_t bytes = to.size(1) * element_size(to.dtype());
  const char* read = static_cast<const char*>(lines.bytes());
  for (const int32_t row : rows) {
    std::memcpy(static_cast<char*>(to.bytes()) + row * bytes, read, static_cast<size_t>(bytes));
    read += bytes;
  }
}

}  // namespace

Results::Results(int64_t rows, int64_t classes, DType dtype) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_VALUE(rows > 0 && classes > 0, "Results: rows and classes must be at least 1 (got ", rows, " and ",
                   classes, ")");
  MOCO_CHECK_FLOATING("Results: dtype", dtype);
  logits_ = Tensor::zeros({rows, classes}, dtype);
  exit_site_ = not_yet(rows);
  exit_rule_ = not_yet(rows);
}

void Results::check(const std::vector<int32_t>& row_ids) const {
  for (const int32_t row : row_ids) {
    MOCO_CHECK_VALUE(row < logits_.size(0), "Results: row_ids must be below ", logits_.size(0), " (got ", row, ")");
  }
}

void Results::write_exits(const std::vector<int32_t>& row_ids, int64_t site, const std::vector<int64_t>& rule_ids,
                          const Tensor& logits) {
  check(row_ids);
  write_rows(logits, row_ids, logits_);
  for (size_t k = 0; k < row_ids.size(); ++k) {
    exit_site_.data<int64_t>()[row_ids[k]] = site;
    exit_rule_.data<int64_t>()[row_ids[k]] = rule_ids[k];
  }
}

void Results::write_last(const std::vector<int32_t>& row_ids, const Tensor& logits) {
  const Timed timed(ProfileSection::kExtension);
  MOCO_CHECK_SHAPE("write_last", logits, {static_cast<int64_t>(row_ids.size()), logits_.size(1)});
  MOCO_CHECK_DTYPE("write_last", logits, logits_.dtype());
  check(row_ids);
  write_rows(logits, row_ids, logits_);
}

}  // namespace moco
