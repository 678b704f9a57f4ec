// LayerNorm and RMSNorm, and the stages of a sub-layer that they stand in: its first and its last.
#pragma once

#include <optional>

#include "core/isa.h"
#include "core/profile.h"
#include "linear/stages.h"
#include "tensor/tensor.h"
#include "transformer/spec.h"

namespace moco {

// A norm's parameters as the kernels want them.
class NormLayer {
 public:
  // Refuses weights of another size.
  NormLayer(const NormSpec& spec, int64_t size);
  Norm get() const { return {weight_.data<float>(), bias_.data<float>(), eps_, rms_}; }

 private:
  Tensor weight_, bias_;  // float32
  float eps_;
  bool rms_;
};

// The norms of a sub-layer, each where there is one.
struct NormLayers {
  NormLayers(const SubLayerNorms& norms, int64_t size);
  std::optional<NormLayer> before, output, after;
  Tensor zeros;  // (size) float32, with `output`
};

// What a sub-layer reads of its tokens: hidden itself, or where a norm comes first what its stage has left.
template <typename T>
const T* normalized(const NormLayers& norms, const T* hidden, const StageBuffers<T>& between) {
  return norms.before ? between.normalized : hidden;
}

// normalized = norm(hidden), empty without one. hidden: (tokens, D)
template <typename T>
Stage<T> first_stage(const NormLayers& norms, const T* hidden, int64_t tokens, int64_t D) {
  if (!norms.before) return {{0, 0}, 0, nullptr};
  return {Linear::tiles(tokens), 20 * tokens * D, [&norms, hidden, D](Range t, Range tiles, StageBuffers<T> between) {
            const Timed timed(ProfileSection::kNorms);
            const Range own = Linear::tokens_of(tiles, t.size());
            hidden_kernels<T>().normalize(hidden + (t.first + own.first) * D, D, norms.before->get(), own.size(), D,
                                          between.normalized + own.first * D, D);
          }};
}

// product = norm(product + bias of linear), (tokens, D): a residual of zeros behind the kernel that adds one.
inline void normalize_output(const Linear& linear, const NormLayers& norms, float* product, int64_t tokens) {
  const int64_t D = linear.outputs();
  const Norm norm = norms.output->get();
  for (float* token = product; token < product + tokens * D; token += D) {
    hidden_kernels<float>().add_residual(token, linear.bias(), norms.zeros.data<float>(), &norm, 1, D, token);
  }
}

// hidden = after(output(product + bias of linear) + hidden), each norm where there is one. hidden: (tokens, D)
template <typename T>
Stage<T> last_stage(const Linear& linear, const NormLayers& norms, T* hidden, int64_t tokens) {
  const int64_t D = linear.outputs();
  return {Linear::tiles(tokens), 20 * tokens * D,
          [&linear, &norms, hidden, D](Range t, Range tiles, StageBuffers<T> between) {
            const Timed timed(ProfileSection::kNorms);
            const Range own = Linear::tokens_of(tiles, t.size());
            T* x = hidden + (t.first + own.first) * D;
            float* product = between.product + own.first * D;
            const Norm norm = norms.after ? norms.after->get() : Norm{};
            if (norms.output) normalize_output(linear, norms, product, own.size());
            const float* bias = norms.output ? norms.zeros.data<float>() : linear.bias();
            hidden_kernels<T>().add_residual(product, bias, x, norms.after ? &norm : nullptr, own.size(), D, x);
          }};
}

}  // namespace moco
