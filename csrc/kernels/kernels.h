// The contract of layer 0: every kernel with its shapes.
//
// Kernels know pointers and int64_t, nothing of torch: they do not allocate, throw or start threads. Each source
// is compiled once per instruction set (see CMakeLists.txt); isa.h hands out the table that fits the processor.
// Shapes: rows B, total_tokens T, hidden size D. Rows are packed: row r holds the tokens cu_seqlens[r] up to
// cu_seqlens[r + 1].
#pragma once

#include <cstdint>

namespace moco {

struct KernelTable {
  const char* isa;

  // score[r] = dot(x[r], weight) + bias; torch: x @ weight + bias.
  //   x: (rows, size), weight: (size), score: (rows)
  void (*linear_score)(const float* x, const float* weight, float bias, int64_t rows, int64_t size, float* score);

  // mean[r] = the mean of row r's tokens; torch: hidden[row].mean(0).
  //   hidden: (T, D), cu_seqlens: (rows + 1), mean: (rows, D)
  void (*mean_pool)(const float* hidden, const int32_t* cu_seqlens, int64_t rows, int64_t D, float* mean);

  // For each run r, copies its length[r] tokens of `stride` bytes each from token source[r] of `from` to token
  // target[r] of `to`. `from` may be `to` where runs move forward (target[r] <= source[r], both ascending).
  void (*copy_runs)(const char* from, char* to, const int64_t* source, const int64_t* target, const int64_t* length,
                    int64_t runs, int64_t stride);
};

// One table per instruction set; those that were not compiled are not linked either.
namespace generic {
extern const KernelTable table;
}
namespace avx2 {
extern const KernelTable table;
}
namespace avx512 {
extern const KernelTable table;
}

}  // namespace moco
