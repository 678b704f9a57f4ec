// A small classifier on a feature of a row: it gives the row an answer and scores how sure that is. One with a single
// output that is not scored estimates a number.
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
  // layers: one, or two with a ReLU between; score, temperature and levels: see Scoring.
  OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature,
          std::vector<double> levels = {});

  int64_t inputs() const { return weights_.front().first.size(1); }
  int64_t outputs() const { return weights_.back().first.size(0); }
  int64_t classes() const { return scoring_.classes(outputs()); }
  int64_t groups() const { return scoring_.groups(outputs()); }
  bool is_label() const { return scoring_.is_label(); }

  // x: (rows, inputs) float32. On the CPU a row has the same bits whatever it is scored with.
  Answers answer(const at::Tensor& x) const;
  // (rows, outputs) float32 on the CPU, before the temperature.
  at::Tensor logits(const at::Tensor& x) const;

 private:
  std::vector<Affine> weights_;
  std::vector<Linear> packed_;  // on the CPU
  Scoring scoring_;
};

}  // namespace moco
