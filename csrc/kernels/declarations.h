// The kernels of one instruction set, the one named by MOCO_ISA; kernels.h says what each does.
#pragma once

#include "kernels/kernels.h"

namespace moco::MOCO_ISA {

void linear_score(const float* x, const float* weight, float bias, int64_t rows, int64_t size, float* score);
void mean_pool(const float* hidden, const int32_t* cu_seqlens, int64_t rows, int64_t D, float* mean);
void copy_runs(const char* from, char* to, const int64_t* source, const int64_t* target, const int64_t* length,
               int64_t runs, int64_t stride);

}  // namespace moco::MOCO_ISA
