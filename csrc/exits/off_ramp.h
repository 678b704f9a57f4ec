// A small classifier on a feature of a row: it gives the row an answer and scores how sure that is. One with a single
// output that is not scored estimates a number.
#pragma once

#include <string>
#include <vector>

#include "exits/answers.h"
#include "linear/linear.h"
#include "linear/weights.h"
#include "tensor/tensor.h"

namespace moco {

class OffRamp {
 public:
  // layers: one, or two with a ReLU between; score, temperature and levels: see Scoring.
  OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature,
          std::vector<double> levels = {});

  int64_t inputs() const { return layers_.front().inputs(); }
  int64_t outputs() const { return layers_.back().outputs(); }
  int64_t classes() const { return scoring_.classes(outputs()); }
  int64_t groups() const { return scoring_.groups(outputs()); }
  bool is_label() const { return scoring_.is_label(); }

  // x: (rows, inputs) float32. A row has the same bits whatever it is scored with.
  Answers answer(const Tensor& x) const;
  // (rows, outputs) float32, before the temperature.
  Tensor logits(const Tensor& x) const;

 private:
  std::vector<Linear> layers_;
  Scoring scoring_;
};

}  // namespace moco
