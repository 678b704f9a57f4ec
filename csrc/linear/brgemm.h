// Products through torch's door to oneDNN's micro-kernels, which are compiled at run time for one (M, N, K) each.
#pragma once

#include "kernels/kernels.h"

namespace moco::brgemm {

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const Columns& b, float* c,
              int64_t ld_c, bool add);
void multiply_int8(int64_t tokens, int64_t columns, int64_t inputs, const Quantized& x, const Columns& weights,
                   const float* scale, const float* sums, float* c, int64_t ld_c);

}  // namespace moco::brgemm
