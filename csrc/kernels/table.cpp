// All kernels of one instruction set, the one named by MOCO_ISA: internal to this file but for the table.
#include "kernels/activation.h"
#include "kernels/attention.h"
#include "kernels/copy_runs.h"
#include "kernels/embedding.h"
#include "kernels/exit_score.h"
#include "kernels/first_token_attention.h"
#include "kernels/norm.h"
#include "kernels/quantize.h"

#define MOCO_STRING(name) #name
#define MOCO_NAME(isa) MOCO_STRING(isa)

namespace moco::MOCO_ISA {

namespace {

template <typename T>
constexpr HiddenKernels<T> hidden_kernels = {
    .embed = embed<T>,
    .bias_activation = bias_activation<float, T>,
    .bias_activation_int8 = bias_activation<int32_t, T>,
    .add_layer_norm = add_layer_norm<T>,
    .quantize = quantize<T>,
    .pack_values = pack_values,
    .softmax = softmax<T>,
    .scale_rows = scale_rows<T>,
    .peek_scores = peek_scores<T>,
    .peek_context = peek_context<T>,
    .mean_pool = mean_pool<T>,
};

}  // namespace

const KernelTable table = {
    .isa = MOCO_NAME(MOCO_ISA),
    .float32 = hidden_kernels<float>,
    .bfloat16_ = hidden_kernels<bfloat16>,
    .pack_keys = pack_keys,
    .dequantize = dequantize,
    .linear_score = linear_score,
    .copy_runs = copy_runs,
};

}  // namespace moco::MOCO_ISA
