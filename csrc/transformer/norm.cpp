#include "transformer/norm.h"

#include <ATen/ops/zeros.h>

namespace moco {

NormLayer::NormLayer(const NormSpec& spec, int64_t size)
    : weight_(spec.weights.first.detach().to(at::kFloat).contiguous()),
      bias_(spec.weights.second.detach().to(at::kFloat).contiguous()),
      eps_(static_cast<float>(spec.eps)),
      rms_(spec.rms) {
  check_affine(spec.weights, {size});
}

NormLayers::NormLayers(const SubLayerNorms& norms, int64_t size) {
  if (norms.before) before.emplace(*norms.before, size);
  if (norms.output) {
    output.emplace(*norms.output, size);
    zeros = at::zeros({size}, at::kFloat);
  }
  if (norms.after) after.emplace(*norms.after, size);
}

}  // namespace moco
