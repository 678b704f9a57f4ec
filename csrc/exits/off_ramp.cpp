#include "exits/off_ramp.h"

#include <utility>

#include "core/checks.h"
#include "linear/stages.h"

namespace moco {

OffRamp::OffRamp(const std::vector<Affine>& layers, const std::string& score, double temperature,
                 std::vector<double> levels)
    : scoring_("OffRamp", score, temperature, std::move(levels)) {
  MOCO_CHECK_VALUE(layers.size() == 1 || layers.size() == 2, "OffRamp: layers must be one or two (got ", layers.size(),
                   ")");
  for (const auto& [weight, bias] : layers) {
    MOCO_CHECK_DTYPE("OffRamp", weight, DType::kFloat32);
    MOCO_CHECK_VALUE(weight.dim() == 2 && weight.size(0) > 0 && weight.size(1) > 0,
                     "OffRamp: weight must have shape (outputs, inputs) (got ", weight.sizes(), ")");
    MOCO_CHECK_SHAPE("OffRamp", bias, {weight.size(0)});
    layers_.emplace_back(LinearWeights{weight, bias}, DType::kFloat32, LinearOptions{.depth = Linear::kFineDepth});
  }
  MOCO_CHECK_VALUE(layers.size() == 1 || layers[1].first.size(1) == layers[0].first.size(0),
                   "OffRamp: the second layer must take what the first gives, ", layers[0].first.size(0), " (got ",
                   layers.back().first.size(1), ")");
  scoring_.check("OffRamp", outputs());
}

Tensor OffRamp::logits(const Tensor& x) const {
  MOCO_CHECK_DTYPE("OffRamp", x, DType::kFloat32);
  MOCO_CHECK_SHAPE("OffRamp", x, {x.size(0), inputs()});
  Tensor out = x.contiguous();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Linear& linear = layers_[i];
    const bool last = i + 1 == layers_.size();
    const Tensor next = Tensor::empty({x.size(0), linear.outputs()}, x.dtype());
    parallel_apply(linear, out.data<float>(), linear.inputs(), x.size(0), last ? Activation::kNone : Activation::kRelu,
                   next.data<float>(), linear.outputs());
    out = next;
  }
  return out;
}

Answers OffRamp::answer(const Tensor& x) const {
  MOCO_CHECK_VALUE(classes() > 1 || !is_label(), "OffRamp: classes must be at least 2 (got ", classes(), ")");
  return scoring_.answer(logits(x));
}

}  // namespace moco
