#include "linear/brgemm.h"

#include <ATen/native/CPUBlas.h>

#include <exception>

#include "core/isa.h"

namespace moco {

// brgemm is torch's door to oneDNN's micro-kernels, compiled at run time for the processor and one (M, N, K) each
// (30 to 80 us, kept per thread). A row of C is summed in the same order whatever M is (tests/extension).
void multiply(int64_t M, int64_t N, int64_t K, const float* a, int64_t ld_a, const float* b, int64_t ld_b, float* c,
              int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/false);
}

void multiply(int64_t M, int64_t N, int64_t K, const bfloat16* a, int64_t ld_a, const bfloat16* b, int64_t ld_b,
              float* c, int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, /*is_vnni=*/true);
}

void multiply(int64_t M, int64_t N, int64_t K, const uint8_t* a, int64_t ld_a, const int8_t* b, int64_t ld_b,
              int32_t* c, int64_t ld_c, bool add) {
  at::native::cpublas::brgemm(M, N, K, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/true);
}

// Tries it on one tile of zeros: there is no other way to ask.
template <typename A, typename B, typename C>
static bool can_multiply_tile() {
  try {
    const A a[4] = {};
    const B b[4 * 16] = {};
    C c[16];
    multiply(1, 16, 4, a, 4, b, 16, c, 16, false);
    return true;
  } catch (const std::exception&) {  // torch refuses, or oneDNN
    return false;
  }
}

bool can_multiply(at::ScalarType weights) {
  static const bool allowed = max_isa() == IsaLevel::kAvx512Bf16;
  static const bool bfloat16s = allowed && can_multiply_tile<bfloat16, bfloat16, float>();
  static const bool int8s = allowed && can_multiply_tile<uint8_t, int8_t, int32_t>();
  return weights == at::kFloat || (weights == at::kBFloat16 && bfloat16s) || (weights == at::kChar && int8s);
}

}  // namespace moco
