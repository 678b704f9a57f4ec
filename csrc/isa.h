// Which instruction set the kernels use: decided once per process.
#pragma once

#include <cstdint>
#include <type_traits>

#include "kernels/kernels.h"

namespace moco {

// The table for this processor. Obeys ATEN_CPU_CAPABILITY (default, avx2, avx512), as torch's own kernels do.
const KernelTable& kernels();

template <typename T>
const HiddenKernels<T>& hidden_kernels() {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return kernels().bfloat16_;
  } else {
    return kernels().float32;
  }
}

// How many threads a parallel loop of this extension really runs on. 1 on a machine with more means that the
// extension was built without OpenMP: at::parallel_for lives in a header and is then silently serial.
int64_t parallel_threads();

}  // namespace moco
