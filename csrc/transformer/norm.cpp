#include "transformer/norm.h"

namespace moco {

LayerNorm::LayerNorm(const Affine& weights, double eps)
    : weight_(weights.first.detach().to(at::kFloat).contiguous()),
      bias_(weights.second.detach().to(at::kFloat).contiguous()),
      eps_(static_cast<float>(eps)) {}

}  // namespace moco
