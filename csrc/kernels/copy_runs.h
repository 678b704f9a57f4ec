// Moving runs of tokens: compaction (forward, in place), unpadding and padding are all this one copy.
#pragma once

#include <cstdint>
#include <cstring>

namespace moco::MOCO_ISA {
namespace {

void copy_runs(const char* from, char* to, const int64_t* source, const int64_t* target, const int64_t* length,
               int64_t runs, int64_t stride) {
  for (int64_t r = 0; r < runs; ++r) {
    const char* read = from + source[r] * stride;
    char* write = to + target[r] * stride;
    if (read == write) continue;  // in place, rows before the first that left are where they belong
    std::memmove(write, read, static_cast<size_t>(length[r] * stride));
  }
}

}  // namespace
}  // namespace moco::MOCO_ISA
