// Attention of packed rows: every token attends to the tokens of its own row.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

namespace moco {

constexpr int64_t kQueryTile = 64;  // queries at a time: their scores against all keys stay in the cache

// softmax(q k^T / sqrt(d)) v for every row and head.
//   qkv: (T, 3, heads, d), projected; a head's context takes the place of its queries. cu_seqlens: (rows + 1), relative
//   to its own first value.
template <typename T>
void varlen_attention(T* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d);

// The same with queries, keys, values and weights rounded to int16, much finer than int8's tokens: for models in int8.
// d is even.
void varlen_attention_int16(float* qkv, const int32_t* cu_seqlens, int64_t rows, int64_t heads, int64_t d);

}  // namespace moco
