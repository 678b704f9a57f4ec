#include "transformer/head.h"

#include <ATen/ops/empty.h>

#include "linear/stages.h"
#include "transformer/activation.h"

namespace moco {

Head::Head(const HeadWeights& weights, at::ScalarType dtype)
    : activation_(activation_from_name(weights.activation)),
      dense_({weights.dense.first, weights.dense.second}, dtype, Linear::kFineDepth),
      output_({weights.output.first, weights.output.second}, dtype, Linear::kFineDepth) {}

template <typename T>
at::Tensor Head::run(const at::Tensor& cls) const {
  const auto data = [](const at::Tensor& tensor) { return static_cast<T*>(tensor.mutable_data_ptr()); };
  const int64_t rows = cls.size(0);
  const at::Tensor pooled = at::empty({rows, dense_.outputs()}, cls.options());
  const at::Tensor logits = at::empty({rows, output_.outputs()}, cls.options());
  parallel_apply(dense_, data(cls), inputs(), rows, activation_, data(pooled), pooled.size(1));
  parallel_apply(output_, data(pooled), pooled.size(1), rows, Activation::kNone, data(logits), logits.size(1));
  return logits;
}

template at::Tensor Head::run<float>(const at::Tensor&) const;
template at::Tensor Head::run<bfloat16>(const at::Tensor&) const;

}  // namespace moco
