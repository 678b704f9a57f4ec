#include "exits/answers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/checks.h"

namespace moco {

namespace {

// The step from 1 to the next number, in a dtype that results may have; those of float64 come from float32 too.
float step(DType dtype) {
  if (dtype == DType::kBFloat16) return 0x1p-7F;
  if (dtype == DType::kFloat16) return 0x1p-10F;
  return std::numeric_limits<float>::epsilon();
}

// log(1 - p_c) of log-probabilities (C): the logarithm of the sum of all but that of class c.
double log_sum_but(const float* log_probs, int64_t C, int64_t c) {
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t other = 0; other < C; ++other) {
    if (other != c) largest = std::max(largest, static_cast<double>(log_probs[other]));
  }
  if (std::isinf(largest)) return largest;
  double sum = 0;
  for (int64_t other = 0; other < C; ++other) {
    if (other != c) sum += std::exp(static_cast<double>(log_probs[other]) - largest);
  }
  return largest + std::log(sum);
}

double log_sigmoid(double x) { return std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x))); }

}  // namespace

Scoring::Scoring(const std::string& op, const std::string& score, double temperature, std::vector<double> levels)
    : inverse_temperature_(static_cast<float>(1 / temperature)), levels_(std::move(levels)) {
  MOCO_CHECK_VALUE(temperature > 0, op, ": temperature must be above 0 (got ", temperature, ")");
  if (score == "max_prob") {
    score_ = Score::kMaxProb;
  } else if (score == "entropy") {
    score_ = Score::kEntropy;
  } else if (score == "sides") {
    score_ = Score::kSides;
  } else if (score == "odds") {
    score_ = Score::kOdds;
  } else {
    MOCO_CHECK_VALUE(score == "deviation", op, ": score must be one of max_prob, entropy, sides, odds, deviation (got ",
                     score, ")");
    score_ = Score::kDeviation;
    MOCO_CHECK_VALUE(temperature == 1, op, ": temperature must be 1 of the score deviation (got ", temperature, ")");
  }
}

void Scoring::check(const std::string& op, int64_t outputs) const {
  const int64_t levels = score_ == Score::kSides || score_ == Score::kOdds ? outputs : 0;
  MOCO_CHECK_VALUE(std::ssize(levels_) == levels, op, ": levels must have ", levels, " values (got ", levels_.size(),
                   ")");
  MOCO_CHECK_VALUE(score_ != Score::kDeviation || outputs % 2 == 0, op,
                   ": outputs must come in pairs of the score deviation (got ", outputs, ")");
}

Answers Scoring::answer(const Tensor& outputs) const {
  switch (score_) {
    case Score::kSides:
      return sides(outputs);
    case Score::kOdds:
      return odds(outputs);
    case Score::kDeviation:
      return deviation(outputs);
    default:
      return label(outputs);
  }
}

Answers Scoring::label(const Tensor& logits) const {
  const int64_t rows = logits.size(0);
  const int64_t C = logits.size(1);
  const Answers out{Tensor::empty({2, rows}, logits.dtype()), Tensor::empty({rows, C}, logits.dtype())};
  auto* score = out.scores.data<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* z = logits.data<float>() + row * C;
    float* log_probs = out.logits.data<float>() + row * C;
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
    score[row] = static_cast<float>(score_ == Score::kMaxProb ? 1 / sum : weighted / sum - log_sum);
    score[rows + row] = static_cast<float>(predicted);
  }
  return out;
}

Answers Scoring::sides(const Tensor& outputs) const {
  const int64_t rows = outputs.size(0);
  const int64_t C = outputs.size(1);
  const Answers out{Tensor::zeros({2, rows}, outputs.dtype()), Tensor::empty({rows, C}, outputs.dtype())};
  auto* score = out.scores.data<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* z = outputs.data<float>() + row * C;
    float* logits = out.logits.data<float>() + row * C;
    double sum = 0;     // of -log sigmoid(|distance|)
    double broken = 0;  // or NaN
    for (int64_t c = 0; c < C; ++c) {
      logits[c] = z[c] * inverse_temperature_;
      const double distance = static_cast<double>(logits[c]) - levels_[static_cast<size_t>(c)];
      sum -= log_sigmoid(std::abs(distance));
      broken += distance * 0;
    }
    score[row] = static_cast<float>(std::exp(-sum) + broken);
  }
  return out;
}

Answers Scoring::odds(const Tensor& logits) const {
  // Log-probabilities come as those of a label do; its score and class are not asked for.
  const Answers out = label(logits);
  const int64_t rows = logits.size(0);
  const int64_t C = logits.size(1);
  auto* score = out.scores.data<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* log_probs = out.logits.data<float>() + row * C;
    double sum = 0;     // of log sigmoid(|distance|)
    double broken = 0;  // or NaN
    for (int64_t c = 0; c < C; ++c) {
      broken += static_cast<double>(log_probs[c]) * 0;
      const double level = levels_[static_cast<size_t>(c)];
      if (std::isinf(level)) continue;
      const double odds = static_cast<double>(log_probs[c]) - log_sum_but(log_probs, C, c);
      sum += log_sigmoid(std::abs(odds - level));
    }
    score[row] = static_cast<float>(std::exp(sum) + broken);
    score[rows + row] = 0;
  }
  return out;
}

Answers Scoring::deviation(const Tensor& outputs) const {
  const int64_t rows = outputs.size(0);
  const int64_t C = outputs.size(1) / 2;
  const Answers out{Tensor::zeros({2, rows}, outputs.dtype()), outputs.narrow(1, 0, C).clone()};
  auto* score = out.scores.data<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* z = outputs.data<float>() + row * 2 * C;
    double broken = 0;  // or NaN
    for (int64_t c = 0; c < 2 * C; ++c) broken += static_cast<double>(z[c]) * 0;
    const auto largest = static_cast<double>(*std::max_element(z + C, z + 2 * C));
    score[row] = static_cast<float>(1 / (1 + std::exp(largest)) + broken);
  }
  return out;
}

void scale_log_odds(float* log_probs, int64_t C, int64_t c, float slope, float shift) {
  double likeliest = -std::numeric_limits<double>::infinity();  // of the others
  for (int64_t other = 0; other < C; ++other) {
    if (other != c) likeliest = std::max(likeliest, static_cast<double>(log_probs[other]));
  }
  if (std::isinf(likeliest)) return;  // c is certain
  const double not_c = log_sum_but(log_probs, C, c);
  const double scaled =
      static_cast<double>(slope) * (static_cast<double>(log_probs[c]) - not_c) + static_cast<double>(shift);
  const double odds = std::max(scaled, likeliest - not_c);
  const double moved = log_sigmoid(-odds) - not_c;
  for (int64_t other = 0; other < C; ++other) {
    if (other != c) log_probs[other] = static_cast<float>(static_cast<double>(log_probs[other]) + moved);
  }
  log_probs[c] = static_cast<float>(log_sigmoid(odds));
}

Tensor round_logits(const Tensor& logits, const std::vector<int64_t>& predicted, DType dtype) {
  const Tensor out = logits.to(dtype).to(DType::kFloat32).clone();
  const int64_t C = out.size(1);
  float* row = out.data<float>();
  for (const int64_t c : predicted) {
    if (c >= 0) {
      const float highest = row[c];
      for (int64_t other = 0; other < C; ++other) {
        if (other != c && row[other] >= highest) row[other] = highest - std::abs(highest) * step(dtype);
      }
    }
    row += C;
  }
  return out.to(dtype);
}

}  // namespace moco
