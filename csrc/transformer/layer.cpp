#include "transformer/layer.h"

namespace moco {

Layer::Layer(const LayerSpec& spec, DType dtype)
    : attention_(spec.attention, spec.around_attention, dtype),
      feed_forward_(spec.feed_forward, spec.around_feed_forward, dtype) {
  if (Peek::can(spec)) peek_.emplace(spec.attention, attention_, dtype);
}

}  // namespace moco
