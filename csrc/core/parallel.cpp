#include "core/parallel.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "core/cores.h"
#include "core/thread_pool.h"
#include "core/torch_brgemm.h"

namespace moco {

namespace {
// The work that pays for one more thread: what a thread does while a helper that is awake notices a loop (1 us), and
// while a sleeping one is woken (5 us for the caller, ten times that until it begins).
constexpr int64_t kFlopsPerThreadAwake = 100'000;
constexpr int64_t kFlopsPerThreadAsleep = 500'000;

// Ranges are cut finer than there are threads, so that one that comes late, or is taken off its core, does less.
constexpr int64_t kPiecesPerThread = 4;

thread_local int64_t torch_threads = 1;
thread_local bool may_have_threads = false;  // a pool of OpenMP's, see parallel.h
std::atomic<bool> has_lost_threads = false;

// Runs in the child, on a copy of the thread that called fork(): whatever other threads did is not its concern.
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] {
  if (may_have_threads) has_lost_threads = true;
});

// A processor with tile registers is left as other code expects it.
struct ReleaseTiles {
  ~ReleaseTiles() {
    if (const TorchBrgemm* brgemm = torch_brgemm(); brgemm != nullptr) brgemm->release(/*is_vnni=*/true);
  }
};

// f(piece) for every piece, on this thread and `helpers` more at most. After an exception no piece is begun.
template <typename F>
void share_out(int64_t pieces, int64_t helpers, const F& f) {
  std::atomic<int64_t> next = 0;
  ThreadPool::instance().run(helpers, [&] {
    const ReleaseTiles release;
    try {
      for (int64_t piece = next++; piece < pieces; piece = next++) f(piece);
    } catch (...) {
      next = pieces;
      throw;
    }
  });
}

}  // namespace

void parallel_ranges(int64_t first, int64_t last, int64_t grain, FunctionRef<void(int64_t, int64_t)> f) {
  if (first >= last) return;
  const int64_t threads = loop_threads();
  const int64_t most = kPiecesPerThread * threads;
  const int64_t size = std::max(grain, (last - first + most - 1) / most);
  if (threads == 1 || size >= last - first) return f(first, last);
  const int64_t pieces = (last - first + size - 1) / size;
  share_out(pieces, std::min(threads, pieces) - 1, [&](int64_t piece) {
    const int64_t begin = first + piece * size;
    f(begin, std::min(last, begin + size));
  });
}

void parallel_tasks(int64_t tasks, int64_t flops, FunctionRef<void(int64_t)> f) {
  const int64_t awake = std::min(ThreadPool::instance().awake(), flops / kFlopsPerThreadAwake);
  const int64_t worth = std::max(awake, flops / kFlopsPerThreadAsleep);
  share_out(tasks, std::min({loop_threads() - 1, tasks - 1, worth}), f);
}

std::vector<Range> shrinking_ranges(int64_t items, int64_t least, int64_t most) {
  const int64_t threads = loop_threads();
  std::vector<Range> ranges;
  for (int64_t first = 0; first < items; first = ranges.back().last) {
    const int64_t left = items - first;
    const int64_t share = threads == 1 ? most : std::clamp(left / (2 * threads), least, most);
    ranges.push_back({first, std::min(items, first + share)});
  }
  return ranges;
}

void set_torch_threads(int64_t threads) { torch_threads = threads; }

int64_t loop_threads() { return ThreadPool::inside() ? 1 : std::min(torch_threads, allowed_cores()); }

int64_t parallel_threads() {
  const int64_t threads = loop_threads();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
  std::mutex mutex;
  std::set<std::thread::id> here;
  const auto arrived = [&] {
    const std::lock_guard lock(mutex);
    here.insert(std::this_thread::get_id());
    return static_cast<int64_t>(here.size());
  };
  ThreadPool::instance().run(threads - 1, [&] {
    while (arrived() < threads && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  });
  return static_cast<int64_t>(here.size());
}

void expect_threads() {
  if (torch_threads > 1) may_have_threads = true;
}

bool lost_threads() { return has_lost_threads; }

}  // namespace moco
