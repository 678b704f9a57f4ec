// The logits of a batch's rows and where each row left, in the order the rows came in.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace moco {

class Results {
 public:
  Results(int64_t rows, int64_t classes, DType dtype);

  const Tensor& logits() const { return logits_; }        // (B, C)
  const Tensor& exit_site() const { return exit_site_; }  // (B) int64, -1: ran to the end
  const Tensor& exit_rule() const { return exit_rule_; }  // (B) int64, -1: ran to the end

  // Rows that leave at a site: row_ids[k] by rule rule_ids[k] with logits[k]: (k, C).
  void write_exits(const std::vector<int32_t>& row_ids, int64_t site, const std::vector<int64_t>& rule_ids,
                   const Tensor& logits);
  // Rows that ran to the end, with the classifier's logits (rows, C).
  void write_last(const std::vector<int32_t>& row_ids, const Tensor& logits);

 private:
  void check(const std::vector<int32_t>& row_ids) const;

  Tensor logits_, exit_site_, exit_rule_;
};

}  // namespace moco
