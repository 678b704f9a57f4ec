#include "exits/answers.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/checks.h"

namespace moco {

namespace {

// The step from 1 to the next number, in a dtype that results may have; those of float64 come from float32 too.
float step(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return std::numeric_limits<at::BFloat16>::epsilon();
  if (dtype == at::kHalf) return std::numeric_limits<at::Half>::epsilon();
  return std::numeric_limits<float>::epsilon();
}

}  // namespace

Scoring::Scoring(const std::string& op, const std::string& score, double temperature)
    : inverse_temperature_(static_cast<float>(1 / temperature)) {
  MOCO_CHECK_VALUE(temperature > 0, op, ": temperature must be above 0 (got ", temperature, ")");
  if (score == "max_prob") {
    score_ = Score::kMaxProb;
  } else {
    MOCO_CHECK_VALUE(score == "entropy", op, ": score must be one of max_prob, entropy (got ", score, ")");
    score_ = Score::kEntropy;
  }
}

Answers Scoring::answer(const at::Tensor& logits) const {
  const int64_t rows = logits.size(0);
  const int64_t C = logits.size(1);
  const Answers out{at::empty({2, rows}, logits.options()), at::empty({rows, C}, logits.options())};
  auto* score = out.scores.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* z = logits.const_data_ptr<float>() + row * C;
    float* log_probs = out.log_probs.mutable_data_ptr<float>() + row * C;
    const int64_t predicted = std::max_element(z, z + C) - z;
    double sum = 0;
    double weighted = 0;  // sum of e^d d, with d <= 0 the scaled logit below the largest
    for (int64_t c = 0; c < C; ++c) {
      log_probs[c] = (z[c] - z[predicted]) * inverse_temperature_;
      const auto d = static_cast<double>(log_probs[c]);
      const double e = std::exp(d);
      sum += e;
      if (e > 0) weighted += e * d;
    }
    const double log_sum = std::log(sum);
    for (int64_t c = 0; c < C; ++c) log_probs[c] = static_cast<float>(static_cast<double>(log_probs[c]) - log_sum);
    switch (score_) {
      case Score::kMaxProb:
        score[row] = static_cast<float>(1 / sum);
        break;
      case Score::kEntropy:  // sum of p log p
        score[row] = static_cast<float>(weighted / sum - log_sum);
        break;
    }
    score[rows + row] = static_cast<float>(predicted);
  }
  return out;
}

at::Tensor round_logits(const at::Tensor& logits, const std::vector<int64_t>& predicted, at::ScalarType dtype) {
  const at::Tensor out = logits.to(dtype).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  const int64_t C = out.size(1);
  float* row = out.mutable_data_ptr<float>();
  for (const int64_t c : predicted) {
    const float highest = row[c];
    for (int64_t other = 0; other < C; ++other) {
      if (other != c && row[other] >= highest) row[other] = highest - std::abs(highest) * step(dtype);
    }
    row += C;
  }
  return out.to(dtype);
}

}  // namespace moco
