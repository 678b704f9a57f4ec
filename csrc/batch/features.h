// The features of rows that exits read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace moco {

class PackedBatch;

// kCls: the pooled token; kMean: the mean over all tokens; kFlat: the first tokens end to end; kClsMean: the pooled
// token beside the mean that was kept (PackedBatch::keep_mean).
enum class Feature { kCls, kMean, kFlat, kClsMean };

Feature feature_from_name(const std::string& name);

// (rows, D) float32: the mean over each row's tokens. hidden: (T, D); cu_seqlens: (rows + 1).
Tensor mean_of_rows(const Tensor& hidden, const std::vector<int32_t>& cu_seqlens);

// (rows, D) float32; kClsMean: (rows, 2 * D); kFlat: (rows, tokens * D), the first `tokens` of each row, zeros behind
// them.
Tensor pool(const PackedBatch& batch, Feature feature, int64_t tokens);

}  // namespace moco
