#include "exits/off_ramp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <cmath>

#include "core/checks.h"
#include "linear/stages.h"

namespace moco {

OffRamp::OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature)
    : weights_(layers), inverse_temperature_(static_cast<float>(1 / temperature)) {
  MOCO_CHECK_VALUE(layers.size() == 1 || layers.size() == 2, "OffRamp: layers must be one or two (got ", layers.size(),
                   ")");
  MOCO_CHECK_VALUE(temperature > 0, "OffRamp: temperature must be above 0 (got ", temperature, ")");
  if (score == "max_prob") {
    score_ = Score::kMaxProb;
  } else {
    MOCO_CHECK_VALUE(score == "entropy", "OffRamp: score must be one of max_prob, entropy (got ", score, ")");
    score_ = Score::kEntropy;
  }
  // Tensors are copied: an off-ramp stays what it was when it was made, whatever becomes of the caller's memory.
  for (auto& [weight, bias] : weights_) {
    MOCO_CHECK_DTYPE("OffRamp", weight, at::kFloat);
    MOCO_CHECK_VALUE(weight.dim() == 2 && weight.size(0) > 0 && weight.size(1) > 0,
                     "OffRamp: weight must have shape (outputs, inputs) (got ", weight.sizes(), ")");
    MOCO_CHECK_SHAPE("OffRamp", bias, {weight.size(0)});
    weight = weight.clone();
    bias = bias.clone();
    if (weight.is_cpu()) packed_.emplace_back(LinearWeights{weight, bias}, at::kFloat, Linear::kFineDepth);
  }
  MOCO_CHECK_VALUE(layers.size() == 1 || layers[1].first.size(1) == layers[0].first.size(0),
                   "OffRamp: the second layer must take what the first gives, ", layers[0].first.size(0), " (got ",
                   layers.back().first.size(1), ")");
  MOCO_CHECK_VALUE(classes() > 1, "OffRamp: classes must be at least 2 (got ", classes(), ")");
}

at::Tensor OffRamp::logits(const at::Tensor& x) const {
  at::Tensor out = x.contiguous();
  for (size_t i = 0; i < weights_.size(); ++i) {
    const bool last = i + 1 == weights_.size();
    if (!out.is_cpu()) {
      out = at::linear(out, weights_[i].first, weights_[i].second);
      if (!last) out = at::relu(out);
      continue;
    }
    const Linear& linear = packed_[i];
    const at::Tensor next = at::empty({x.size(0), linear.outputs()}, x.options());
    parallel_apply(linear, out.const_data_ptr<float>(), linear.inputs(), x.size(0),
                   last ? Activation::kNone : Activation::kRelu, next.mutable_data_ptr<float>(), linear.outputs());
    out = next;
  }
  return out.cpu();
}

// One row's: the logits' largest is that of the predicted class.
float OffRamp::score_row(const float* logits, int64_t predicted) const {
  double sum = 0;
  double weighted = 0;  // sum of e^d d, with d <= 0 the scaled logit below the largest
  for (int64_t c = 0; c < classes(); ++c) {
    const double d = static_cast<double>((logits[c] - logits[predicted]) * inverse_temperature_);
    const double e = std::exp(d);
    sum += e;
    if (e > 0) weighted += e * d;
  }
  switch (score_) {
    case Score::kMaxProb:
      return static_cast<float>(1 / sum);
    case Score::kEntropy:  // sum of p log p
      return static_cast<float>(weighted / sum - std::log(sum));
  }
  TORCH_INTERNAL_ASSERT(false, "unknown score");
}

at::Tensor OffRamp::score(const at::Tensor& x) const {
  MOCO_CHECK_DTYPE("OffRamp", x, at::kFloat);
  MOCO_CHECK_SHAPE("OffRamp", x, {x.size(0), inputs()});
  const at::Tensor z = logits(x);
  const int64_t rows = x.size(0);
  const at::Tensor out = at::empty({2, rows}, z.options());
  auto* score = out.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row) {
    const float* logits = z.const_data_ptr<float>() + row * classes();
    const int64_t predicted = std::max_element(logits, logits + classes()) - logits;
    score[row] = score_row(logits, predicted);
    score[rows + row] = static_cast<float>(predicted);
  }
  return out;
}

}  // namespace moco
