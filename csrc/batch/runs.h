// Moving runs of tokens from one tensor to another: padding, unpadding and compaction are all this.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace moco {

// For every run r and t < length[r], token source[r] + t of one tensor goes to token target[r] + t of another.
struct Runs {
  std::vector<int64_t> source, target, length;
};

// from, to: (tokens, D) of one dtype, contiguous; may be one tensor if the runs move forward.
void move_tokens(const Tensor& from, const Tensor& to, const Runs& runs);

}  // namespace moco
