// Which instruction set the kernels use: decided once per process.
#pragma once

#include <type_traits>

#include "kernels/kernels.h"

namespace moco {

// Levels of processors, each with everything that stands before it.
enum class IsaLevel { kGeneric, kAvx2, kAvx512, kAvx512Vnni, kAvx512Bf16, kAmx };

// The highest level that this process may use: the environment variable MOCO_MAX_ISA, read once.
//   generic, avx2   as on a processor without AVX2, without AVX-512
//   avx512          AVX-512 without its products of bytes (VNNI) and of bfloat16 (BF16)
//   avx512_vnni     AVX-512 without its products of bfloat16
//   avx512_bf16     AVX-512 with both; the default
//   amx             products on the tiles of AMX besides: by this name alone, as long as no test has run on such a
//   processor
// Throws a ValueError for any other value.
IsaLevel max_isa();

// The table for this processor. Obeys MOCO_MAX_ISA, and ATEN_CPU_CAPABILITY (default, avx2, avx512) as torch's own
// kernels do.
const KernelTable& kernels();

template <typename T>
const HiddenKernels<T>& hidden_kernels() {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return kernels().bfloat16_;
  } else {
    return kernels().float32;
  }
}

}  // namespace moco
