// Products of small matrices, the one door to the micro-kernels that compute them.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "kernels/kernels.h"

namespace moco {

// Whether this process can multiply with weights of this dtype: float32 always, bfloat16 where the processor has
// products of it (AVX-512 BF16), int8 where it sums products of bytes into 32 bits (AVX-512 VNNI), and both only as far
// as MOCO_MAX_ISA allows.
bool can_multiply(at::ScalarType weights);

// C = A B, or C + A B. a: (M, K), c: (M, N); b: (K, N), bfloat16: (K / 2, N, 2), pairs of inputs side by side, int8:
// (K / 4, N, 4).
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add);
void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add);
void multiply(int64_t M, int64_t N, int64_t K, const uint8_t* a, int64_t ld_a, const int8_t* b, int64_t ld_b,
              int32_t* c, int64_t ld_c, bool add);

}  // namespace moco
