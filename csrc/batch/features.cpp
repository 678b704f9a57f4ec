#include "batch/features.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/tensor.h>

#include "batch/packed_batch.h"
#include "core/checks.h"
#include "core/isa.h"
#include "core/parallel.h"

namespace moco {

namespace {

// Below this many bytes a second thread costs more than it copies.
constexpr int64_t kBytesPerThread = 1 << 18;

// out: (rows, D) float32
template <typename T>
void mean_on_cpu(const T* hidden, const std::vector<int32_t>& cu_seqlens, const at::Tensor& out) {
  const int64_t rows = out.size(0);
  const int64_t D = out.size(1);
  const int64_t bytes = cu_seqlens.back() * D * static_cast<int64_t>(sizeof(T));
  parallel_ranges(0, rows, rows * kBytesPerThread / (bytes + 1) + 1, [&](int64_t begin, int64_t end) {
    hidden_kernels<T>().mean_pool(hidden, &cu_seqlens[static_cast<size_t>(begin)], end - begin, D,
                                  out.mutable_data_ptr<float>() + begin * D);
  });
}

}  // namespace

Feature feature_from_name(const std::string& name) {
  if (name == "cls") return Feature::kCls;
  if (name == "mean") return Feature::kMean;
  if (name == "flat") return Feature::kFlat;
  if (name == "cls+mean") return Feature::kClsMean;
  MOCO_CHECK_VALUE(false, "feature must be one of cls, mean, flat, cls+mean (got ", name, ")");
}

at::Tensor mean_of_rows(const at::Tensor& hidden, const std::vector<int32_t>& cu_seqlens) {
  if (!hidden.is_cpu()) {
    const at::Tensor lengths = at::tensor(cu_seqlens).diff().to(hidden.device(), at::kLong, /*non_blocking=*/true);
    return at::segment_reduce(hidden.to(at::kFloat), "mean", lengths, /*indices=*/std::nullopt,
                              /*offsets=*/std::nullopt, /*axis=*/0,
                              /*unsafe=*/true);
  }
  const at::Tensor out = at::empty({std::ssize(cu_seqlens) - 1, hidden.size(1)}, hidden.options().dtype(at::kFloat));
  if (hidden.dtype() == at::kBFloat16) {
    mean_on_cpu(static_cast<const bfloat16*>(hidden.const_data_ptr()), cu_seqlens, out);
  } else {
    mean_on_cpu(hidden.to(at::kFloat).const_data_ptr<float>(), cu_seqlens, out);
  }
  return out;
}

at::Tensor pool(const PackedBatch& batch, Feature feature, int64_t tokens) {
  switch (feature) {
    case Feature::kCls:
      return batch.cls().hidden().to(at::kFloat);
    case Feature::kMean:
      return mean_of_rows(batch.hidden(), batch.cu_seqlens());
    case Feature::kFlat:
      MOCO_CHECK_VALUE(tokens > 0, "pool: tokens must be at least 1 (got ", tokens, ")");
      return batch.padded(tokens).flatten(1).to(at::kFloat);
    case Feature::kClsMean:
      MOCO_CHECK_VALUE(batch.kept_mean().defined(), "pool: cls+mean needs the mean of an earlier keep_mean (got none)");
      return at::cat({pool(batch, Feature::kCls, 1), batch.kept_mean()}, 1);
  }
  TORCH_INTERNAL_ASSERT(false, "unknown feature");
}

}  // namespace moco
