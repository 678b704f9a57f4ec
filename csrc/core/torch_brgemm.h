// Torch's door to oneDNN's micro-kernels, which multiply tiles on a processor with AMX.
#pragma once

#include <cstdint>

namespace moco {

// c = a b, or c + a b; b in words (see Columns). Shapes: a (M, K), b (K, N), c (M, N).
struct TorchBrgemm {
  using Floats = void (*)(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add,
                          const void* a, const void* b, float* c, bool is_vnni);
  using Bytes = void (*)(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add,
                         const uint8_t* a, const int8_t* b, int32_t* c, bool is_vnni);
  Floats bfloat16_;
  Bytes int8;
  // Leaves a thread's tile registers as other code expects them.
  void (*release)(bool is_vnni);
};

// Null without AMX, or where the torch of this process has no such door: its C++ names are no promise of torch's, so
// they are looked for when they are needed, and the extension is not linked with them.
const TorchBrgemm* torch_brgemm();

// The same whatever the processor, for a test that torch still has the door.
const TorchBrgemm* find_torch_brgemm();

}  // namespace moco
