#include "batch/features.h"

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
void mean_of(const T* hidden, const std::vector<int32_t>& cu_seqlens, const Tensor& out) {
  const int64_t rows = out.size(0);
  const int64_t D = out.size(1);
  const int64_t bytes = cu_seqlens.back() * D * static_cast<int64_t>(sizeof(T));
  parallel_ranges(0, rows, rows * kBytesPerThread / (bytes + 1) + 1, [&](int64_t begin, int64_t end) {
    hidden_kernels<T>().mean_pool(hidden, &cu_seqlens[static_cast<size_t>(begin)], end - begin, D,
                                  out.data<float>() + begin * D);
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

Tensor mean_of_rows(const Tensor& hidden, const std::vector<int32_t>& cu_seqlens) {
  const Tensor out = Tensor::empty({std::ssize(cu_seqlens) - 1, hidden.size(1)}, DType::kFloat32);
  if (hidden.dtype() == DType::kBFloat16) {
    mean_of(hidden.data<bfloat16>(), cu_seqlens, out);
  } else {
    mean_of(hidden.to(DType::kFloat32).data<float>(), cu_seqlens, out);
  }
  return out;
}

Tensor pool(const PackedBatch& batch, Feature feature, int64_t tokens) {
  switch (feature) {
    case Feature::kCls:
      return batch.cls().hidden().to(DType::kFloat32);
    case Feature::kMean:
      return mean_of_rows(batch.hidden(), batch.cu_seqlens());
    case Feature::kFlat: {
      MOCO_CHECK_VALUE(tokens > 0, "pool: tokens must be at least 1 (got ", tokens, ")");
      const Tensor padded = batch.padded(tokens).to(DType::kFloat32);
      return padded.view({padded.size(0), padded.size(1) * padded.size(2)});
    }
    case Feature::kClsMean:
      break;
  }
  MOCO_CHECK_VALUE(batch.kept_mean().defined(), "pool: cls+mean needs the mean of an earlier keep_mean (got none)");
  const Tensor cls = pool(batch, Feature::kCls, 1);
  const Tensor& mean = batch.kept_mean();
  const Tensor out = Tensor::empty({cls.size(0), cls.size(1) + mean.size(1)}, DType::kFloat32);
  copy(cls, out.narrow(1, 0, cls.size(1)));
  copy(mean, out.narrow(1, cls.size(1), mean.size(1)));
  return out;
}

}  // namespace moco
