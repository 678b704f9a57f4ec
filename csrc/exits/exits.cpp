#include "exits/exits.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "core/checks.h"
#include "core/isa.h"
#include "core/profile.h"

namespace moco {

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();  // a score that never fires

void add_to(float* sums, const Tensor& values) {
  for (int64_t i = 0; i < values.numel(); ++i) sums[i] += values.data<float>()[i];
}

}  // namespace

Exits::Exits(int64_t site, int64_t classes, bool count_streaks)
    : site_(site), classes_(classes), count_streaks_(count_streaks) {
  MOCO_CHECK_VALUE(site >= 0 && classes > 0, "Exits: site must be at least 0 and classes at least 1 (got ", site,
                   " and ", classes, ")");
}

void Exits::add(Rule rule) {
  MOCO_CHECK_VALUE(rule.id >= 0, "Exits: rule_id must be at least 0 (got ", rule.id, ")");
  rules_.push_back(std::move(rule));
}

// The numbers that all rows of a rule leave with.
std::vector<float> Exits::constant(const Tensor& logits) const {
  MOCO_CHECK_SHAPE("Exits", logits, {classes_});
  const Tensor host = logits.to(DType::kFloat32);
  return {host.data<float>(), host.data<float>() + classes_};
}

// Slopes must not turn surer rows into less sure ones.
void Exits::check_log_odds(const std::vector<float>& log_odds, bool is_label) const {
  MOCO_CHECK_VALUE(log_odds.empty() || (is_label && std::ssize(log_odds) == 2 * classes_),
                   "Exits: log_odds must have 2 * ", classes_, " values of a single class, else none (got ",
                   log_odds.size(), ")");
  for (size_t i = 0; i < log_odds.size(); ++i) {
    MOCO_CHECK_VALUE(std::isfinite(log_odds[i]) && (i % 2 == 1 || log_odds[i] >= 0),
                     "Exits: log_odds must be finite, slopes not negative (got ", log_odds[i], ")");
  }
}

// Tensors are copied: a rule stays what it was when it was added, whatever becomes of the caller's memory.
void Exits::add_linear(int64_t rule_id, const Tensor& logits, const std::string& feature, const Tensor& weight,
                       double bias, double threshold) {
  MOCO_CHECK_DTYPE("Exits", weight, DType::kFloat32);
  MOCO_CHECK_VALUE(weight.dim() == 1 && weight.numel() > 0, "Exits: weight must have shape (size) (got ",
                   weight.sizes(), ")");
  add({.id = rule_id,
       .thresholds = {static_cast<float>(threshold)},
       .logits = constant(logits),
       .feature = feature_from_name(feature),
       .weight = weight.clone(),
       .bias = static_cast<float>(bias)});
}

void Exits::add_off_ramp(int64_t rule_id, const std::string& feature, OffRamp off_ramp, std::vector<float> thresholds,
                         int64_t patience, std::vector<float> log_odds) {
  MOCO_CHECK_VALUE(off_ramp.classes() == classes_ && std::ssize(thresholds) == off_ramp.groups(),
                   "Exits: off_ramp must have ", classes_, " classes and ", off_ramp.is_label() ? classes_ : 1,
                   " thresholds (got ", off_ramp.classes(), " and ", thresholds.size(), ")");
  MOCO_CHECK_VALUE(patience > 0, "Exits: patience must be at least 1 (got ", patience, ")");
  MOCO_CHECK_VALUE(patience == 1 || count_streaks_, "Exits: patience must be 1 where streaks are not counted (got ",
                   patience, ")");
  check_log_odds(log_odds, off_ramp.is_label());
  add({.id = rule_id,
       .thresholds = std::move(thresholds),
       .feature = feature_from_name(feature),
       .off_ramp = std::move(off_ramp),
       .patience = patience,
       .log_odds = std::move(log_odds)});
}

void Exits::add_bag(int64_t rule_id, BagOfTokens bag, std::vector<float> thresholds, std::vector<float> log_odds) {
  MOCO_CHECK_VALUE(bag.classes() == classes_ && std::ssize(thresholds) == bag.groups(), "Exits: bag must have ",
                   classes_, " classes and ", bag.is_label() ? classes_ : 1, " thresholds (got ", bag.classes(),
                   " and ", thresholds.size(), ")");
  check_log_odds(log_odds, bag.is_label());
  add({.id = rule_id, .thresholds = std::move(thresholds), .bag = std::move(bag), .log_odds = std::move(log_odds)});
}

void Exits::add_callable(int64_t rule_id, const Tensor& logits) {
  add({.id = rule_id, .thresholds = {0.5F}, .logits = constant(logits)});
}

// Of those that were pooled, or of the batch's hidden states.
int64_t Exits::hidden_size(const PackedBatch& batch, const Pooled& pooled) {
  for (const auto& [key, feature] : pooled) {
    if (key.first == Feature::kMean) return key.second;
  }
  return batch.hidden().size(1);
}

// The feature that the rule reads: (rows, size).
const Tensor& Exits::pool(const Rule& rule, int64_t size, const PackedBatch& batch, Pooled& pooled) {
  const int64_t D = hidden_size(batch, pooled);
  const int64_t multiple = *rule.feature == Feature::kClsMean ? 2 : 1;
  const bool flat = *rule.feature == Feature::kFlat;
  MOCO_CHECK_VALUE(flat ? size % D == 0 : size == multiple * D, "Exits: weight of rule ", rule.id, " must have size ",
                   flat            ? "a multiple of "
                   : multiple == 2 ? "2 * "
                                   : "",
                   D, ", the hidden size (got ", size, ")");
  Tensor& x = pooled[{*rule.feature, size}];
  if (!x.defined()) x = moco::pool(batch, *rule.feature, size / D);
  MOCO_CHECK_VALUE(x.size(1) == size, "Exits: features must hold what rule ", rule.id, " reads, of size ", size,
                   " (got none)");
  return x;
}

// (rows) of x (rows, size): 0, or NaN where one of a row's numbers is not finite. The trick: x * 0 is 0 for every
// finite number and NaN for NaN and infinity, so one sum of products with 0 looks at all of them.
Tensor Exits::nan_where_broken(const Tensor& x) {
  const Tensor zero = Tensor::zeros({x.size(1)}, DType::kFloat32);
  const Tensor out = Tensor::empty({x.size(0)}, DType::kFloat32);
  kernels().linear_score(x.data<float>(), zero.data<float>(), 0, x.size(0), x.size(1), out.data<float>());
  return out;
}

// score: (rows), written.
void Exits::linear_score(const Rule& rule, const PackedBatch& batch, Pooled& pooled, float* score) {
  const int64_t D = hidden_size(batch, pooled);
  const int64_t size = rule.weight.numel();
  const Tensor& x = pool(rule, size, batch, pooled);
  kernels().linear_score(x.data<float>(), rule.weight.data<float>(), rule.bias, batch.rows(), size, score);
  if (*rule.feature != Feature::kFlat) return;
  // A row with more tokens than the rule was fitted on does not leave by it.
  const std::vector<int32_t>& cu_seqlens = batch.cu_seqlens();
  for (int64_t row = 0; row < batch.rows(); ++row) {
    const auto r = static_cast<size_t>(row);
    if ((cu_seqlens[r + 1] - cu_seqlens[r]) * D > size) score[row] = kNaN;
  }
}

Exits::Scores Exits::scores(const PackedBatch& batch, const std::vector<Tensor>& fires, Pooled pooled) const {
  const auto is_callable = [](const Rule& rule) { return !rule.feature && !rule.bag; };
  MOCO_CHECK_VALUE(std::ssize(fires) == std::count_if(rules_.begin(), rules_.end(), is_callable),
                   "Exits: fires must hold one answer for each callable (got ", fires.size(), ")");
  const bool embedded = batch.has_hidden() || !pooled.empty();
  const int64_t rows = batch.rows();
  const Tensor scores = Tensor::zeros({std::ssize(rules_), 2, rows}, DType::kFloat32);
  std::vector<Tensor> logits(rules_.size());
  auto next = fires.begin();
  for (size_t r = 0; r < rules_.size(); ++r) {
    const Rule& rule = rules_[r];
    const Tensor both = scores.select(0, static_cast<int64_t>(r));
    float* const score = both.data<float>();
    if (rule.off_ramp) {
      const Tensor& x = pool(rule, rule.off_ramp->inputs(), batch, pooled);
      const Answers answers = rule.off_ramp->answer(x);
      copy(answers.scores, both);
      logits[r] = answers.logits;
      add_to(score, nan_where_broken(x));  // a ReLU may swallow it
    } else if (rule.bag) {
      const Answers answers = rule.bag->answer(batch);
      copy(answers.scores, both);
      logits[r] = answers.logits;
    } else if (rule.feature) {
      linear_score(rule, batch, pooled, score);
    } else {
      const Tensor& answer = *next++;
      MOCO_CHECK_DTYPE("Exits", answer, DType::kBool);
      MOCO_CHECK_SHAPE("Exits", answer, {rows});
      copy(answer, both.select(0, 0));
    }
  }
  if (!embedded) return {scores, logits};
  // A NaN that the last sub-layer made in one token has not reached the pooled token yet: only the row's mean shows it.
  Tensor& mean = pooled[{Feature::kMean, hidden_size(batch, pooled)}];
  if (!mean.defined()) mean = moco::pool(batch, Feature::kMean, 0);
  const Tensor broken = nan_where_broken(mean);
  for (int64_t r = 0; r < std::ssize(rules_); ++r) add_to(scores.select(0, r).data<float>(), broken);
  return {scores, logits};
}

Exits::Pooled Exits::checked(const PackedBatch& batch, const std::vector<PooledFeature>& features) {
  Pooled pooled;
  for (const auto& [name, x] : features) {
    MOCO_CHECK_DTYPE("Exits", x, DType::kFloat32);
    MOCO_CHECK_VALUE(x.dim() == 2 && x.size(0) == batch.rows(), "Exits: features must have shape (", batch.rows(),
                     ", size) (got ", x.sizes(), ")");
    MOCO_CHECK_VALUE(x.size(1) > 0, "Exits: features must have a size of at least 1 (got 0)");
    pooled[{feature_from_name(name), x.size(1)}] = x.contiguous();
  }
  return pooled;
}

int64_t Exits::apply(PackedBatch& batch, Results& results, Streaks& streaks, const std::vector<Tensor>& fires,
                     const std::vector<PooledFeature>& features) const {
  const Timed extension(ProfileSection::kExtension);
  const Timed timed(ProfileSection::kExits);
  MOCO_CHECK_VALUE(results.logits().size(1) == classes_, "Exits: results must have ", classes_, " classes (got ",
                   results.logits().size(1), ")");
  const Scores scored = scores(batch, fires, checked(batch, features));
  const int64_t rows = batch.rows();
  std::vector<bool> keep(static_cast<size_t>(rows), true);
  std::vector<int32_t> row_ids;   // of the rows that leave
  std::vector<int64_t> rule_ids;  // by which rules
  std::vector<float> logits;      // with which, C of each
  std::vector<int64_t> classes;   // the largest of which; -1: they do not say a single class
  for (int64_t row = 0; row < rows; ++row) {
    for (size_t r = 0; r < rules_.size(); ++r) {
      const Rule& rule = rules_[r];
      const int32_t row_id = batch.row_ids()[static_cast<size_t>(row)];
      const float* both = scored.scores.data<float>() + static_cast<int64_t>(r) * 2 * rows;
      const auto predicted = static_cast<int64_t>(both[rows + row]);
      const int64_t streak = count_streaks_ && rule.off_ramp ? streaks.add(row_id, predicted) : rule.patience;
      const float value = both[row];
      if (!(std::isfinite(value) && value > rule.thresholds[static_cast<size_t>(predicted)])) continue;
      if (streak < rule.patience) continue;
      keep[static_cast<size_t>(row)] = false;
      row_ids.push_back(row_id);
      rule_ids.push_back(rule.id);
      const bool constant = !scored.logits[r].defined();
      const float* own = constant ? rule.logits.data() : scored.logits[r].data<float>() + row * classes_;
      logits.insert(logits.end(), own, own + classes_);
      if (!rule.log_odds.empty()) {
        const float* line = rule.log_odds.data() + 2 * predicted;
        scale_log_odds(logits.data() + std::ssize(logits) - classes_, classes_, predicted, line[0], line[1]);
      }
      if (constant) {
        classes.push_back(std::max_element(own, own + classes_) - own);
      } else {
        classes.push_back((rule.off_ramp ? rule.off_ramp->is_label() : rule.bag->is_label()) ? predicted : -1);
      }
      break;  // the first that fires wins
    }
  }
  if (row_ids.empty()) return 0;
  results.write_exits(
      row_ids, site_, rule_ids,
      round_logits(Tensor::of(logits).view({std::ssize(row_ids), classes_}), classes, results.logits().dtype()));
  batch.compact(keep);
  return std::ssize(row_ids);
}

}  // namespace moco
