#include "exits.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "checks.h"
#include "isa.h"
#include "profile.h"

namespace moco {

namespace {
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();  // a score that never fires
}

Exits::Exits(int64_t site, int64_t classes) : site_(site), classes_(classes) {
  TORCH_CHECK_VALUE(site >= 0 && classes > 1, "Exits: site must be at least 0 and classes at least 2 (got ", site,
                    " and ", classes, ")");
}

void Exits::add(Rule rule) {
  TORCH_CHECK_VALUE(rule.id >= 0, "Exits: rule_id must be at least 0 (got ", rule.id, ")");
  const at::Tensor& logits = rule.logits;
  MOCO_CHECK_SHAPE("Exits", logits, {classes_});
  rules_.push_back(std::move(rule));
}

// Tensors are copied: a rule stays what it was when it was added, whatever becomes of the caller's memory.
void Exits::add_linear(int64_t rule_id, const at::Tensor& logits, const std::string& feature, const at::Tensor& weight,
                       double bias, double threshold) {
  MOCO_CHECK_DTYPE("Exits", weight, at::kFloat);
  TORCH_CHECK_VALUE(weight.dim() == 1 && weight.numel() > 0, "Exits: weight must have shape (size) (got ",
                    weight.sizes(), ")");
  add({rule_id, logits.clone(), feature_from_name(feature), weight.clone(at::MemoryFormat::Contiguous),
       static_cast<float>(bias), static_cast<float>(threshold)});
}

void Exits::add_callable(int64_t rule_id, const at::Tensor& logits) {
  add({rule_id, logits.clone(), std::nullopt, {}, 0.0F, 0.5F});
}

// score: (rows), written.
void Exits::linear_score(const Rule& rule, const PackedBatch& batch, Pooled& pooled, const at::Tensor& score) {
  const int64_t D = batch.hidden().size(1);
  const int64_t size = rule.weight.numel();
  const bool flat = *rule.feature == Feature::kFlat;
  TORCH_CHECK_VALUE(flat ? size % D == 0 : size == D, "Exits: weight of rule ", rule.id, " must have size ",
                    flat ? "a multiple of " : "", D, ", the hidden size (got ", size, ")");
  const at::Tensor& weight = rule.weight;
  MOCO_CHECK_DEVICE("Exits", weight, score.device());
  at::Tensor& x = pooled[static_cast<size_t>(*rule.feature)];
  if (!x.defined() || x.size(1) != size) x = batch.pool(*rule.feature, size / D);
  if (x.is_cpu()) {
    kernels().linear_score(x.const_data_ptr<float>(), weight.const_data_ptr<float>(), rule.bias, batch.rows(), size,
                           score.mutable_data_ptr<float>());
  } else {
    score.copy_(x.mv(weight).add(rule.bias));
  }
  if (!flat) return;
  // What a rule was not fitted to see whole it has no say in.
  const std::vector<int32_t>& cu_seqlens = batch.cu_seqlens();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    if ((cu_seqlens[r + 1] - cu_seqlens[r]) * D > size) score[row].fill_(kNaN);
  }
}

// -> (rules, rows) float32, on the device of the batch.
at::Tensor Exits::scores(const PackedBatch& batch, const std::vector<at::Tensor>& fires) const {
  const auto is_callable = [](const Rule& rule) { return !rule.feature; };
  TORCH_CHECK_VALUE(std::ssize(fires) == std::count_if(rules_.begin(), rules_.end(), is_callable),
                    "Exits: fires must hold one answer for each callable (got ", fires.size(), ")");
  const at::Tensor scores = at::empty({std::ssize(rules_), batch.rows()}, batch.hidden().options().dtype(at::kFloat));
  Pooled pooled;
  auto next = fires.begin();
  for (size_t r = 0; r < rules_.size(); ++r) {
    const at::Tensor score = scores.select(0, static_cast<int64_t>(r));
    if (rules_[r].feature) {
      linear_score(rules_[r], batch, pooled, score);
    } else {
      const at::Tensor& answer = *next++;
      MOCO_CHECK_DTYPE("Exits", answer, at::kBool);
      MOCO_CHECK_SHAPE("Exits", answer, {batch.rows()});
      score.copy_(answer, /*non_blocking=*/true);
    }
  }
  // What the last sub-layer broke in one token has not met the others yet: it shows in the row's mean alone.
  at::Tensor& mean = pooled[static_cast<size_t>(Feature::kMean)];
  if (!mean.defined()) mean = batch.pool(Feature::kMean, 0);
  scores.masked_fill_(mean.isfinite().all(1).logical_not(), kNaN);
  return scores;
}

int64_t Exits::apply(PackedBatch& batch, Results& results, const std::vector<at::Tensor>& fires) const {
  const Timed extension(Part::kExtension);
  const Timed timed(Part::kExits);
  TORCH_CHECK_VALUE(results.logits().size(1) == classes_, "Exits: results must have ", classes_, " classes (got ",
                    results.logits().size(1), ")");
  const at::Tensor score = scores(batch, fires).cpu();  // the one host synchronisation of an exit point
  const int64_t rows = batch.rows();
  std::vector<bool> keep(static_cast<size_t>(rows), true);
  std::vector<int32_t> row_ids;   // of the rows that leave
  std::vector<int64_t> places;    // of their rules, in rules_
  std::vector<int64_t> rule_ids;  // the same rules, as the caller numbers them
  for (int64_t row = 0; row < rows; ++row) {
    for (size_t r = 0; r < rules_.size(); ++r) {
      const float value = score.const_data_ptr<float>()[static_cast<int64_t>(r) * rows + row];
      if (!(std::isfinite(value) && value > rules_[r].threshold)) continue;
      keep[static_cast<size_t>(row)] = false;
      row_ids.push_back(batch.row_ids()[static_cast<size_t>(row)]);
      places.push_back(static_cast<int64_t>(r));
      rule_ids.push_back(rules_[r].id);
      break;  // the first that fires wins
    }
  }
  if (row_ids.empty()) return 0;
  std::vector<at::Tensor> logits;
  for (const Rule& rule : rules_) logits.push_back(rule.logits);
  results.write_exits(row_ids, site_, rule_ids, at::stack(logits).index_select(0, at::tensor(places)));
  batch.compact(keep);
  return std::ssize(row_ids);
}

}  // namespace moco
