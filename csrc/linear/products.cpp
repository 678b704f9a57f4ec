#include "linear/products.h"

#include "core/isa.h"
#include "core/torch_brgemm.h"
#include "linear/brgemm.h"

namespace moco {

const Products& products() {
  static const Products chosen = [] {
    Products best{kernels().float32.multiply, kernels().bfloat16_.multiply, kernels().multiply_int8};
#ifdef MOCO_X86
    if (&kernels() == &avx512_bf16::table && torch_brgemm() != nullptr) {  // nothing of ours multiplies tiles yet
      best.bfloat16_ = brgemm::multiply;
      best.int8 = brgemm::multiply_int8;
    }
#endif
    return best;
  }();
  return chosen;
}

bool can_multiply(DType weights) {
  return weights == DType::kFloat32 || weights == DType::kInt8 ||
         (weights == DType::kBFloat16 && products().bfloat16_ != nullptr);
}

std::string products_of(DType weights) {
  if (!can_multiply(weights)) return "none";
  const bool ours = weights == DType::kBFloat16 ? products().bfloat16_ == kernels().bfloat16_.multiply
                    : weights == DType::kInt8   ? products().int8 == kernels().multiply_int8
                                                : true;
  return ours ? kernels().isa : "oneDNN";
}

}  // namespace moco
