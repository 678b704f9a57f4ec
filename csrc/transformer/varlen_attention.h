// Attention of packed rows: every token attends to the tokens of its own row.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace moco {

// softmax(q k^T / sqrt(d)) v for every row and head.
//   qkv: (T, 3, heads, d), projected; a head's context takes the place of its queries. cu_seqlens: (rows + 1), relative
//   to its own first value.
template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d);

}  // namespace moco
