// LayerNorm, and the stage that both sub-layers of a layer end in.
#pragma once

#include <ATen/core/Tensor.h>

#include "core/isa.h"
#include "core/profile.h"
#include "linear/stages.h"
#include "linear/weights.h"

namespace moco {

// LayerNorm's parameters as the kernels want them.
class LayerNorm {
 public:
  LayerNorm(const Affine& weights, double eps);
  Norm get() const { return {weight_.const_data_ptr<float>(), bias_.const_data_ptr<float>(), eps_}; }

 private:
  at::Tensor weight_, bias_;  // float32
  float eps_;
};

// hidden = LayerNorm(product + bias of linear + hidden). hidden: (tokens, D)
template <typename T>
Stage<T> norm_stage(const Linear& linear, const LayerNorm& norm, T* hidden) {
  return {{0, 1}, 0, [&linear, &norm, hidden](Range t, Range, StageBuffers<T> between) {
            const Timed timed(ProfileSection::kNorms);
            const int64_t D = linear.outputs();
            T* x = hidden + t.first * D;
            hidden_kernels<T>().add_layer_norm(between.product, linear.bias(), x, norm.get(), t.size(), D, x);
          }};
}

}  // namespace moco
