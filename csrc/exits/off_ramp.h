// A small classifier on a feature of a row: it predicts a class and scores how sure that is. One with a single output
// estimates a number instead.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "exits/answers.h"
#include "linear/linear.h"
#include "linear/weights.h"

namespace moco {

class OffRamp {
 public:
  // layers: one, or two with a ReLU between; score: max_prob or entropy, of softmax(logits / temperature).
  OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature);

  int64_t inputs() const { return weights_.front().first.size(1); }
  int64_t classes() const { return weights_.back().first.size(0); }

  // x: (rows, inputs) float32. On the CPU a row has the same bits whatever it is scored with.
  Answers answer(const at::Tensor& x) const;
  // (rows, C) float32 on the CPU, before the temperature.
  at::Tensor logits(const at::Tensor& x) const;

 private:
  std::vector<Affine> weights_;
  std::vector<Linear> packed_;  // on the CPU
  Scoring scoring_;
};

}  // namespace moco
