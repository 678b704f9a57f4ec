#include "linear/products.h"

#include "core/isa.h"
#ifdef MOCO_BRGEMM
#include "linear/brgemm.h"
#endif

namespace moco {

const Products& products() {
  static const Products chosen = [] {
    Products best{kernels().float32.multiply, kernels().bfloat16_.multiply, kernels().multiply_int8};
#if defined(MOCO_BRGEMM) && defined(MOCO_X86)
    if (&kernels() == &avx512_bf16::table) {  // nothing of ours multiplies tiles yet
      if (__builtin_cpu_supports("amx-bf16")) best.bfloat16_ = brgemm::multiply;
      if (__builtin_cpu_supports("amx-int8")) best.int8 = brgemm::multiply_int8;
    }
#endif
    return best;
  }();
  return chosen;
}

bool can_multiply(at::ScalarType weights) {
  return weights == at::kFloat || weights == at::kChar || (weights == at::kBFloat16 && products().bfloat16_ != nullptr);
}

std::string products_of(at::ScalarType weights) {
  if (!can_multiply(weights)) return "none";
  const bool ours = weights == at::kBFloat16 ? products().bfloat16_ == kernels().bfloat16_.multiply
                    : weights == at::kChar   ? products().int8 == kernels().multiply_int8
                                             : true;
  return ours ? kernels().isa : "oneDNN";
}

}  // namespace moco
