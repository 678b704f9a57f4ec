#include "exits.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "checks.h"
#include "isa.h"

namespace moco {

void Exits::add(Rule rule) {
  MOCO_CHECK_SHAPE("Exits", rule.logits, {classes_});
  rules_.push_back(std::move(rule));
}

void Exits::add_linear(int64_t rule_id, const at::Tensor& logits, const std::string& feature, const at::Tensor& weight,
                       double bias, double threshold) {
  MOCO_CHECK_DTYPE("Exits", weight, at::kFloat);
  TORCH_CHECK_VALUE(weight.dim() == 1 && weight.numel() > 0, "Exits: weight must have shape (size) (got ",
                    weight.sizes(), ")");
  add({rule_id, logits, feature_from_name(feature), weight.contiguous(), static_cast<float>(bias),
       static_cast<float>(threshold)});
}

void Exits::add_mask(int64_t rule_id, const at::Tensor& logits) {
  add({rule_id, logits, std::nullopt, {}, 0.0F, 0.5F});
}

// -> (rules, rows) float32, on the device of the batch.
at::Tensor Exits::scores(const PackedBatch& batch, const std::vector<at::Tensor>& masks) const {
  const at::Tensor hidden = batch.hidden();
  const int64_t D = hidden.size(1);
  const int64_t rules = static_cast<int64_t>(rules_.size());
  const at::Tensor scores = at::empty({rules, batch.rows()}, hidden.options().dtype(at::kFloat));
  std::array<at::Tensor, 3> pooled;  // each feature once, however many rules read it
  size_t masks_read = 0;
  for (int64_t r = 0; r < rules; ++r) {
    const Rule& rule = rules_[static_cast<size_t>(r)];
    const at::Tensor score = scores.select(0, r);
    if (!rule.feature) {
      const at::Tensor& mask = masks[masks_read++];
      MOCO_CHECK_DTYPE("Exits", mask, at::kBool);
      MOCO_CHECK_SHAPE("Exits", mask, {batch.rows()});
      score.copy_(mask);
      continue;
    }
    const int64_t size = rule.weight.numel();
    const bool flat = *rule.feature == Feature::kFlat;
    TORCH_CHECK_VALUE(flat ? size % D == 0 : size == D, "Exits: weight of rule ", rule.id, " must have size ",
                      flat ? "a multiple of " : "", D, ", the hidden size (got ", size, ")");
    MOCO_CHECK_DEVICE("Exits", rule.weight, hidden.device());
    at::Tensor& x = pooled[static_cast<size_t>(*rule.feature)];
    if (!x.defined() || x.size(1) != size) x = batch.pool(*rule.feature, size / D);
    if (x.is_cpu()) {
      kernels().linear_score(x.const_data_ptr<float>(), rule.weight.const_data_ptr<float>(), rule.bias, batch.rows(),
                             size, score.mutable_data_ptr<float>());
    } else {
      score.copy_(x.mv(rule.weight).add(rule.bias));
    }
  }
  return scores;
}

int64_t Exits::apply(PackedBatch& batch, Results& results, const std::vector<at::Tensor>& masks) const {
  const auto is_mask = [](const Rule& rule) { return !rule.feature; };
  TORCH_CHECK_VALUE(std::ssize(masks) == std::count_if(rules_.begin(), rules_.end(), is_mask),
                    "Exits: masks must hold one mask for each rule that is a mask (got ", masks.size(), ")");
  TORCH_CHECK_VALUE(results.logits().size(1) == classes_, "Exits: results must have ", classes_, " classes (got ",
                    results.logits().size(1), ")");
  const at::Tensor score = scores(batch, masks).cpu();  // the one host synchronisation of an exit point
  const int64_t rows = batch.rows();
  std::vector<bool> keep(static_cast<size_t>(rows), true);
  std::vector<int32_t> row_ids;
  std::vector<int64_t> rule_ids;
  std::vector<at::Tensor> logits;
  for (int64_t row = 0; row < rows; ++row) {
    for (size_t r = 0; r < rules_.size(); ++r) {
      const float value = score.const_data_ptr<float>()[static_cast<int64_t>(r) * rows + row];
      if (!(std::isfinite(value) && value > rules_[r].threshold)) continue;
      keep[static_cast<size_t>(row)] = false;
      row_ids.push_back(batch.row_ids()[static_cast<size_t>(row)]);
      rule_ids.push_back(rules_[r].id);
      logits.push_back(rules_[r].logits);
      break;
    }
  }
  if (row_ids.empty()) return 0;
  results.write_exits(row_ids, site_, rule_ids, at::stack(logits));
  batch.compact(keep);
  return static_cast<int64_t>(row_ids.size());
}

}  // namespace moco
