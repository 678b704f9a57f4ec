// A small classifier's answers to rows: from its logits to what is compared with thresholds, and to what rows leave
// with.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace moco {

// All on the CPU.
struct Answers {
  at::Tensor scores;     // (2, rows) float32: scores, the higher the surer, and predicted classes
  at::Tensor log_probs;  // (rows, C) float32
};

// Makes answers of softmax(logits / temperature).
class Scoring {
 public:
  // op: the class that an error names. score: max_prob or entropy, of which the negative is taken.
  Scoring(const std::string& op, const std::string& score, double temperature);

  // logits: (rows, C) float32 on the CPU. Of several classes with the highest logit the first is predicted.
  Answers answer(const at::Tensor& logits) const;

 private:
  enum class Score { kMaxProb, kEntropy };

  Score score_;
  float inverse_temperature_;
};

// logits (rows, C) float32 on the CPU, rounded to numbers of `dtype`: the largest of each row stays that of the class
// in `predicted`. Log-probabilities that are equal once they are rounded (bfloat16 has 8 bits) would give the row's
// label to another class: these are taken one step down.
at::Tensor round_logits(const at::Tensor& logits, const std::vector<int64_t>& predicted, at::ScalarType dtype);

}  // namespace moco
