// A small classifier's answers to rows: from its logits to what is compared with thresholds, and to what rows leave
// with.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace moco {

struct Answers {
  Tensor scores;  // (2, rows) float32: scores, the higher the surer, and which of the thresholds each must exceed
  Tensor logits;  // (rows, C) float32, with which rows leave
};

// Makes answers of a classifier's outputs z.
//
// max_prob, entropy: one class of C. p = softmax(z / temperature); the score is the highest p, or sum p log p. A row
// must
//   exceed the threshold of the class it is predicted, and leaves with log p.
// sides: any of C labels, each of which holds where its logit reaches a level. The score is the probability that all
//   are on the right side, prod_c sigmoid(|z_c / temperature - level_c|); a row leaves with z / temperature.
// odds: one class of C, each of which is compared with a level; infinite: it is not. The score is the probability that
//   all are on the right side, prod_c sigmoid(|log-odds_c - level_c|), of p = softmax(z / temperature); a row leaves
//   with log p.
// deviation: C numbers, by 2 C outputs: estimates, and logarithms of their standard deviations in units of what an
//   error may be. The score is 1 / (1 + the largest of these deviations); a row leaves with the estimates.
class Scoring {
 public:
  // op: the class that an error names. levels: (C) of sides and odds; else empty. Of deviation the temperature is 1.
  Scoring(const std::string& op, const std::string& score, double temperature, std::vector<double> levels = {});

  // Of a classifier with so many outputs: how many numbers rows leave with, C, and how many thresholds there are.
  int64_t classes(int64_t outputs) const { return score_ == Score::kDeviation ? outputs / 2 : outputs; }
  int64_t groups(int64_t outputs) const { return is_label() ? outputs : 1; }
  // Whether a row is predicted a single class.
  bool is_label() const { return score_ == Score::kMaxProb || score_ == Score::kEntropy; }
  // Refuses a number of outputs that the levels, or pairs of outputs, do not fit.
  void check(const std::string& op, int64_t outputs) const;

  // outputs: (rows, outputs) float32. Of several classes with the highest logit the first is predicted. A
  // row has the same bits whatever it is scored with; one with an output that is not finite has the score NaN.
  Answers answer(const Tensor& outputs) const;

 private:
  enum class Score { kMaxProb, kEntropy, kSides, kOdds, kDeviation };

  Answers label(const Tensor& logits) const;
  Answers sides(const Tensor& outputs) const;
  Answers odds(const Tensor& logits) const;
  Answers deviation(const Tensor& outputs) const;

  Score score_;
  float inverse_temperature_;
  std::vector<double> levels_;
};

// log_probs (C) of a row that is predicted class c, changed so that the log-odds of c, log(p / (1 - p)), become slope *
// log-odds + shift (Platt, 1999). The other classes keep their proportions, and none becomes likelier than c.
void scale_log_odds(float* log_probs, int64_t C, int64_t c, float slope, float shift);

// logits (rows, C) float32, rounded to numbers of `dtype`: the largest of each row stays that of the class
// in `predicted`, but where that is -1. Log-probabilities that are equal once they are rounded (bfloat16 has 8 bits)
// would give the row's label to another class: these are taken one step down.
Tensor round_logits(const Tensor& logits, const std::vector<int64_t>& predicted, DType dtype);

}  // namespace moco
