#include "transformer/head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "batch/features.h"
#include "core/checks.h"
#include "linear/stages.h"
#include "transformer/activation.h"

namespace moco {

namespace {

Pooling pooling_from_name(const std::string& name) {
  if (name == "first") return Pooling::kFirst;
  if (name == "mean") return Pooling::kMean;
  MOCO_CHECK_VALUE(false, "pooling must be one of first, mean (got ", name, ")");
}

template <typename T>
T* data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// out = norm(x), (any, size) each; out may be x.
template <typename T>
void normalize(const NormLayer& norm, const at::Tensor& x, const at::Tensor& out) {
  const int64_t size = x.size(1);
  parallel_ranges(0, x.size(0), Linear::kTile, [&](int64_t begin, int64_t end) {
    hidden_kernels<T>().normalize(data<T>(x) + begin * size, size, norm.get(), end - begin, size,
                                  data<T>(out) + begin * size, size);
  });
}

}  // namespace

Head::Head(const HeadSpec& spec, at::ScalarType dtype)
    : pooling_(pooling_from_name(spec.pooling)),
      output_({spec.output.first, spec.output.second}, dtype, Linear::kFineDepth) {
  if (spec.dense) {
    activation_ = activation_from_name(spec.activation);
    dense_.emplace(LinearWeights{spec.dense->first, spec.dense->second}, dtype, Linear::kFineDepth);
  }
  if (spec.final_norm) final_norm_.emplace(*spec.final_norm, inputs());
  if (spec.norm) norm_.emplace(*spec.norm, output_.inputs());
}

// (rows, inputs)
template <typename T>
at::Tensor Head::pooled(const PackedBatch& batch) const {
  const at::Tensor tokens = pooling_ == Pooling::kFirst ? batch.cls().hidden() : batch.hidden();
  at::Tensor read = tokens;
  if (final_norm_) {
    read = at::empty_like(tokens);
    normalize<T>(*final_norm_, tokens, read);
  }
  return pooling_ == Pooling::kFirst ? read : mean_of_rows(read, batch.cu_seqlens()).to(tokens.scalar_type());
}

template <typename T>
at::Tensor Head::run(const PackedBatch& batch) const {
  at::Tensor x = pooled<T>(batch);
  const int64_t rows = x.size(0);
  if (dense_) {
    const at::Tensor inner = at::empty({rows, dense_->outputs()}, x.options());
    parallel_apply(*dense_, data<T>(x), inputs(), rows, activation_, data<T>(inner), inner.size(1));
    x = inner;
  }
  if (norm_) normalize<T>(*norm_, x, x);
  const at::Tensor logits = at::empty({rows, output_.outputs()}, x.options());
  parallel_apply(output_, data<T>(x), x.size(1), rows, Activation::kNone, data<T>(logits), logits.size(1));
  return logits;
}

template at::Tensor Head::run<float>(const PackedBatch&) const;
template at::Tensor Head::run<bfloat16>(const PackedBatch&) const;

}  // namespace moco
