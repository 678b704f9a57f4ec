#include "parallel.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <atomic>

namespace moco {

namespace {
// Waking threads takes 1 to 5 us, in which one thread does about this much.
constexpr int64_t kFlopsPerThread = 500'000;

// A processor with tile registers is left as other code expects it.
struct ReleaseTiles {
  ~ReleaseTiles() { at::native::cpublas::brgemm_release(); }
};

}  // namespace

void parallel_tasks(int64_t tasks, int64_t flops, c10::function_ref<void(int64_t)> f) {
  const int64_t threads = std::min({int64_t{at::get_num_threads()}, tasks, flops / kFlopsPerThread + 1});
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    const ReleaseTiles release;
    for (; begin < end; ++begin) {
      for (int64_t task = next++; task < tasks; task = next++) f(task);
    }
  });
}

}  // namespace moco
