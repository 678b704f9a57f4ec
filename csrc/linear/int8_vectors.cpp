#include "linear/int8_vectors.h"

#include <numeric>

#include "kernels/kernels.h"

namespace moco {

// scale and sums: zeros behind the last output.
Int8Vectors::Int8Vectors(const std::vector<LinearWeights>& layers, const Tensor& numbers)
    : factor(Tensor::empty({numbers.size(1)}, DType::kFloat32)),
      scale(Tensor::zeros({round_up(numbers.size(0), kBlock)}, DType::kFloat32)),
      sums(Tensor::zeros({round_up(numbers.size(0), kBlock)}, DType::kFloat32)) {
  copy(layers[0].smooth, factor);
  for (int64_t k = 0; k < factor.numel(); ++k) factor.data<float>()[k] = 1.0F / factor.data<float>()[k];
  int64_t first = 0;
  for (const LinearWeights& layer : layers) {
    copy(layer.scale, scale.narrow(0, first, layer.outputs()));
    first += layer.outputs();
  }
  const Tensor rows = numbers.contiguous();
  for (int64_t n = 0; n < rows.size(0); ++n) {
    const int8_t* row = rows.data<int8_t>() + n * rows.size(1);
    sums.data<float>()[n] = static_cast<float>(std::accumulate(row, row + rows.size(1), int64_t{0}));
  }
}

}  // namespace moco
