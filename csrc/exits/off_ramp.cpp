#include "exits/off_ramp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include <utility>

#include "core/checks.h"
#include "linear/stages.h"

namespace moco {

OffRamp::OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature,
                 std::vector<double> levels)
    : weights_(layers), scoring_("OffRamp", score, temperature, std::move(levels)) {
  MOCO_CHECK_VALUE(layers.size() == 1 || layers.size() == 2, "OffRamp: layers must be one or two (got ", layers.size(),
                   ")");
  // Tensors are copied: an off-ramp stays what it was when it was made, whatever becomes of the caller's memory.
  for (auto& [weight, bias] : weights_) {
    MOCO_CHECK_DTYPE("OffRamp", weight, at::kFloat);
    MOCO_CHECK_VALUE(weight.dim() == 2 && weight.size(0) > 0 && weight.size(1) > 0,
                     "OffRamp: weight must have shape (outputs, inputs) (got ", weight.sizes(), ")");
    MOCO_CHECK_SHAPE("OffRamp", bias, {weight.size(0)});
    weight = weight.clone();
    bias = bias.clone();
    if (weight.is_cpu())
      packed_.emplace_back(LinearWeights{weight, bias}, at::kFloat, LinearOptions{.depth = Linear::kFineDepth});
  }
  MOCO_CHECK_VALUE(layers.size() == 1 || layers[1].first.size(1) == layers[0].first.size(0),
                   "OffRamp: the second layer must take what the first gives, ", layers[0].first.size(0), " (got ",
                   layers.back().first.size(1), ")");
  scoring_.check("OffRamp", outputs());
}

at::Tensor OffRamp::logits(const at::Tensor& x) const {
  MOCO_CHECK_DTYPE("OffRamp", x, at::kFloat);
  MOCO_CHECK_SHAPE("OffRamp", x, {x.size(0), inputs()});
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

Answers OffRamp::answer(const at::Tensor& x) const {
  MOCO_CHECK_VALUE(classes() > 1 || !is_label(), "OffRamp: classes must be at least 2 (got ", classes(), ")");
  return scoring_.answer(logits(x));
}

}  // namespace moco
