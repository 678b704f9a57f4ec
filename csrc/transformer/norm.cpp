#include "transformer/norm.h"

namespace moco {

NormLayer::NormLayer(const NormSpec& spec, int64_t size)
    : weight_(spec.weights.first.to(DType::kFloat32).clone()),
      bias_(spec.weights.second.to(DType::kFloat32).clone()),
      eps_(static_cast<float>(spec.eps)),
      rms_(spec.rms) {
  check_affine(spec.weights, {size});
}

NormLayers::NormLayers(const SubLayerNorms& norms, int64_t size) {
  if (norms.before) before.emplace(*norms.before, size);
  if (norms.output) {
    output.emplace(*norms.output, size);
    zeros = Tensor::zeros({size}, DType::kFloat32);
  }
  if (norms.after) after.emplace(*norms.after, size);
}

}  // namespace moco
