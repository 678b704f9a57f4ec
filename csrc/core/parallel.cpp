#include "core/parallel.h"

#include <ATen/native/CPUBlas.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <vector>

namespace moco {

namespace {
// Waking threads takes 1 to 5 us, in which one thread does about this much.
constexpr int64_t kFlopsPerThread = 500'000;

thread_local bool may_have_threads = false;  // a pool of its own, see parallel.h
std::atomic<bool> has_lost_threads = false;

// Runs in the child, on a copy of the thread that called fork(): whatever other threads did is not its concern.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  if (may_have_threads) has_lost_threads = true;
});

// A processor with tile registers is left as other code expects it.
struct ReleaseTiles {
  ~ReleaseTiles() { at::native::cpublas::brgemm_release(); }
};

}  // namespace

void parallel_ranges(int64_t first, int64_t last, int64_t grain, c10::function_ref<void(int64_t, int64_t)> f) {
  if (first >= last) return;
  if (lost_threads()) return f(first, last);
  at::parallel_for(first, last, grain, f);
}

void parallel_tasks(int64_t tasks, int64_t flops, c10::function_ref<void(int64_t)> f) {
  const int64_t threads = std::min({int64_t{at::get_num_threads()}, tasks, flops / kFlopsPerThread + 1});
  std::atomic<int64_t> next = 0;
  parallel_ranges(0, threads, 1, [&](int64_t begin, int64_t end) {
    const ReleaseTiles release;
    for (; begin < end; ++begin) {
      for (int64_t task = next++; task < tasks; task = next++) f(task);
    }
  });
}

int64_t parallel_threads() {
  const int64_t tasks = at::get_num_threads();
  std::vector<int> thread(static_cast<size_t>(tasks), 0);
  parallel_ranges(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) thread[static_cast<size_t>(i)] = at::get_thread_num();
  });
  return static_cast<int64_t>(std::set<int>(thread.begin(), thread.end()).size());
}

void expect_threads() {
  if (at::get_num_threads() > 1) may_have_threads = true;
}

bool lost_threads() { return has_lost_threads; }

}  // namespace moco
