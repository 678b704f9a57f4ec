// Memory that a thread keeps from call to call.
#pragma once

#include <cstdint>

#include "tensor/memory.h"

namespace moco {

// Declared thread_local where it is used: it grows to what the largest call needed, so that in steady state nothing is
// allocated.
class Scratch {
 public:
  // Room for n values, aligned to a cache line; what was there before is lost where it has to grow.
  template <typename T>
  T* of(int64_t n) {
    const auto bytes = static_cast<size_t>(n) * sizeof(T);
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = 0;  // should there be no memory for what follows
      memory_ = allocate(bytes);
      bytes_ = bytes;
    }
    return static_cast<T*>(memory_.get());
  }

 private:
  Memory memory_;
  size_t bytes_ = 0;
};

}  // namespace moco
