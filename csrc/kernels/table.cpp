// All kernels of one instruction set, the one named by MOCO_ISA: internal to this file but for the table.
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/copy_runs.h"
#include "kernels/embedding.h"
#include "kernels/exit_score.h"
#include "kernels/first_token_attention.h"
#include "kernels/gemm/floats.h"
#include "kernels/gemm/int8.h"
#include "kernels/gemm/sparse.h"
#include "kernels/int16_attention.h"
#include "kernels/norm.h"
#include "kernels/quantize.h"
#include "kernels/rope.h"

#define MOCO_STRING(name) #name
#define MOCO_NAME(isa) MOCO_STRING(isa)

namespace moco::MOCO_ISA {

namespace {

template <typename T>
constexpr HiddenKernels<T> hidden_kernels(decltype(HiddenKernels<T>::multiply) multiply) {
  return {
      .embed = embed<T>,
      .multiply = multiply,
      .bias_activation = bias_activation<T>,
      .gated = gated<T>,
      .add_residual = add_residual<T>,
      .normalize = normalize<T>,
      .rotate = rotate<T>,
      .quantize = quantize<T>,
      .lay_in_strips = lay_in_strips<T>,
      .pack_values = pack_values,
      .softmax = softmax<T>,
      .scale_rows = scale_rows<T>,
      .add_received = add_received<T>,
      .peek_scores = peek_scores<T>,
      .peek_context = peek_context<T>,
      .mean_pool = mean_pool<T>,
  };
}

#ifdef MOCO_BFLOAT16
constexpr auto kBFloat16Products = static_cast<decltype(HiddenKernels<bfloat16>::multiply)>(multiply);
#else
constexpr decltype(HiddenKernels<bfloat16>::multiply) kBFloat16Products = nullptr;
#endif

}  // namespace

const KernelTable table = {
    .isa = MOCO_NAME(MOCO_ISA),
#if defined(MOCO_X86_VECTORS) || !defined(__x86_64__)
    .fused = true,
#else
    .fused = false,
#endif
    .float32 = hidden_kernels<float>(multiply),
    .bfloat16_ = hidden_kernels<bfloat16>(kBFloat16Products),
    .int16_attention =
        {
            .largest = largest,
            .halves_to_int16 = halves_to_int16,
            .values_to_int16 = values_to_int16,
            .scores = multiply_int16,
            .context = multiply_int16_to_float,
            .softmax = softmax_int16,
            .add_received = add_received_int16,
        },
    .sparse =
        {
            .multiply_1x1 = multiply_sparse<FourByFour, 4, 1>,
            .multiply_1x4 = multiply_sparse<FourByFour, 4, 4>,
            .multiply_4x1 = multiply_sparse<WordByWord, 1, 1>,
            .multiply_int8 = multiply_sparse_int8,
        },
    .pack_keys = pack_keys,
    .add_to_scores = add_to_scores,
    .add_transposed_to_scores = add_transposed_to_scores,
    .multiply_int8 = multiply_int8,
    .linear_score = linear_score,
    .copy_runs = copy_runs,
};

}  // namespace moco::MOCO_ISA
