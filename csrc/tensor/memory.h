// Memory for numbers.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace moco {

constexpr size_t kCacheLine = 64;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<void, Free>;

struct NoMemory : std::bad_alloc {
  const char* what() const noexcept override { return "there must be memory for so many numbers (got none)"; }
};

// So many bytes that begin at a cache line, not written. Throws NoMemory where there are none.
inline Memory allocate(size_t bytes) {
  const size_t whole_lines = bytes / kCacheLine * kCacheLine + kCacheLine;  // never none
  if (whole_lines < bytes) throw NoMemory();
  void* const memory = std::aligned_alloc(kCacheLine, whole_lines);
  if (memory == nullptr) throw NoMemory();
  return Memory(memory);
}

}  // namespace moco
