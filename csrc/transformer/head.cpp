#include "transformer/head.h"

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

// out = norm(x), (any, size) each; out may be x.
template <typename T>
void normalize(const NormLayer& norm, const Tensor& x, const Tensor& out) {
  const int64_t size = x.size(1);
  parallel_ranges(0, x.size(0), Linear::kTile, [&](int64_t begin, int64_t end) {
    hidden_kernels<T>().normalize(x.data<T>() + begin * size, size, norm.get(), end - begin, size,
                                  out.data<T>() + begin * size, size);
  });
}

}  // namespace

Head::Head(const HeadSpec& spec, int64_t D, DType dtype)
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
void Head::normalize(const Tensor& hidden) const {
  if (final_norm_) moco::normalize<T>(*final_norm_, hidden, hidden);
}

template <typename T>
Tensor Head::read(const PackedBatch& batch) const {
  const Tensor tokens = pooling_ == Pooling::kToken ? batch.cls().hidden() : batch.hidden();
  if (!final_norm_) return tokens;
  const Tensor normalized = Tensor::empty(tokens.sizes(), tokens.dtype());
  moco::normalize<T>(*final_norm_, tokens, normalized);
  return normalized;
}

template <typename T>
Tensor Head::run(const PackedBatch& batch) const {
  Tensor inner = read<T>(batch);
  const auto take_mean = [&] { inner = mean_of_rows(inner, batch.cu_seqlens()).to(inner.dtype()); };
  if (pooling_ == Pooling::kMean) take_mean();
  if (dense_) {
    const Tensor x = std::move(inner);
    inner = Tensor::empty({x.size(0), dense_->outputs()}, x.dtype());
    parallel_apply(*dense_, x.data<T>(), x.size(1), x.size(0), activation_, inner.data<T>(), inner.size(1));
  }
  if (pooling_ == Pooling::kDenseMean) take_mean();
  const int64_t rows = inner.size(0);
  if (norm_) moco::normalize<T>(*norm_, inner, inner);
  const Tensor logits = Tensor::empty({rows, classes()}, inner.dtype());
  parallel_apply(*output_, inner.data<T>(), inner.size(1), rows, Activation::kNone, logits.data<T>(), logits.size(1));
  return logits;
}

template void Head::normalize<float>(const Tensor&) const;
template void Head::normalize<bfloat16>(const Tensor&) const;
template Tensor Head::run<float>(const PackedBatch&) const;
template Tensor Head::run<bfloat16>(const PackedBatch&) const;

}  // namespace moco
