#include "transformer/layer.h"

#include <ATen/ops/equal.h>

#include "core/checks.h"

namespace moco {

// The weights, if they fit each other.
static const LayerWeights& checked(const LayerWeights& weights) {
  const auto& [query, key, value, attention_output, attention_norm, intermediate, output, output_norm] = weights;
  const int64_t D = query.inputs();
  const int64_t F = intermediate.outputs();
  for (const LinearWeights* square : {&query, &key, &value, &attention_output}) check_linear(*square, D, D);
  check_linear(intermediate, F, D);
  check_linear(output, D, F);
  for (const Affine* norm : {&attention_norm, &output_norm}) check_affine(*norm, {D});
  for (const LinearWeights* other : {&key, &value}) {  // which read the same tokens, quantised once
    MOCO_CHECK_VALUE(
        other->quantized() == query.quantized() && (!query.quantized() || at::equal(other->smooth, query.smooth)),
        "TransformerClassifier: query, key and value must all be int8 with the same smooth, or none of them");
  }
  return weights;
}

Layer::Layer(const LayerWeights& weights, int64_t heads, Activation activation, double eps, at::ScalarType dtype)
    : attention_(checked(weights), heads, eps, dtype),
      feed_forward_(weights, activation, eps, dtype),
      peek_(weights, attention_, heads, dtype) {}

}  // namespace moco
