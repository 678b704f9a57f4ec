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
  if (name == "token") return Pooling::kToken;
  if (name == "mean") return Pooling::kMean;
  if (name == "dense_mean") return Pooling::kDenseMean;
  MOCO_CHECK_VALUE(false, "pooling must be one of token, mean, dense_mean (got ", name, ")");
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

Head::Head(const HeadSpec& spec, int64_t D, at::ScalarType dtype)
    : pooling_(pooling_from_name(spec.pooling)),
      activation_(spec.dense ? activation_from_name(spec.activation) : Activation::kNone) {
  const auto fine = [&](const Affine& layer) {
    return Linear({layer.first, layer.second}, dtype, {.depth = Linear::kFineDepth});
  };
  if (spec.final_norm) final_norm_.emplace(*spec.final_norm, D);
  int64_t size = D;
  if (spec.dense) {
    check_affine(*spec.dense, {spec.dense->first.size(0), D});
    size = dense_.emplace(fine(*spec.dense)).outputs();
  }
  if (spec.norm) norm_.emplace(*spec.norm, size);
  if (spec.output) {
    check_affine(*spec.output, {spec.output->first.size(0), size});
    output_.emplace(fine(*spec.output));
  }
}

template <typename T>
void Head::normalize(const at::Tensor& hidden) const {
  if (final_norm_) moco::normalize<T>(*final_norm_, hidden, hidden);
}

template <typename T>
at::Tensor Head::read(const PackedBatch& batch) const {
  const at::Tensor tokens = pooling_ == Pooling::kToken ? batch.cls().hidden() : batch.hidden();
  if (!final_norm_) return tokens;
  const at::Tensor normalized = at::empty_like(tokens);
  moco::normalize<T>(*final_norm_, tokens, normalized);
  return normalized;
}

template <typename T>
at::Tensor Head::run(const PackedBatch& batch) const {
  at::Tensor inner = read<T>(batch);
  const auto take_mean = [&] { inner = mean_of_rows(inner, batch.cu_seqlens()).to(inner.scalar_type()); };
  if (pooling_ == Pooling::kMean) take_mean();
  if (dense_) {
    const at::Tensor x = std::move(inner);
    inner = at::empty({x.size(0), dense_->outputs()}, x.options());
    parallel_apply(*dense_, data<T>(x), x.size(1), x.size(0), activation_, data<T>(inner), inner.size(1));
  }
  if (pooling_ == Pooling::kDenseMean) take_mean();
  const int64_t rows = inner.size(0);
  if (norm_) moco::normalize<T>(*norm_, inner, inner);
  const at::Tensor logits = at::empty({rows, classes()}, inner.options());
  parallel_apply(*output_, data<T>(inner), inner.size(1), rows, Activation::kNone, data<T>(logits), logits.size(1));
  return logits;
}

template void Head::normalize<float>(const at::Tensor&) const;
template void Head::normalize<bfloat16>(const at::Tensor&) const;
template at::Tensor Head::run<float>(const PackedBatch&) const;
template at::Tensor Head::run<bfloat16>(const PackedBatch&) const;

}  // namespace moco
