// Which kernels multiply: this extension's own, or oneDNN's on a processor with AMX.
#pragma once

#include <string>

#include "kernels/kernels.h"
#include "tensor/dtype.h"

namespace moco {

// The products of one processor; see kernels.h for what each computes.
struct Products {
  decltype(HiddenKernels<float>::multiply) float32;
  decltype(HiddenKernels<bfloat16>::multiply) bfloat16_;  // null where the processor has no products of bfloat16
  decltype(KernelTable::multiply_int8) int8;
};
const Products& products();

// Whether this process can multiply with weights of this dtype: float32 and int8 always, bfloat16 where the processor
// has products of it and MOCO_MAX_ISA allows them.
bool can_multiply(DType weights);

// The kernels that multiply weights of this dtype: an instruction set of ours, `oneDNN`, or `none`.
std::string products_of(DType weights);

inline void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const Columns& b, float* c,
                     int64_t ld_c, bool add) {
  products().float32(M, N, K, a, ld_a, b, c, ld_c, add);
}
inline void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const Columns& b, float* c,
                     int64_t ld_c, bool add) {
  products().bfloat16_(M, N, K, a, ld_a, b, c, ld_c, add);
}

}  // namespace moco
