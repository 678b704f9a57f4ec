#include "core/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace moco {

namespace {

// How long a helper waits awake for the next loop: the pauses within a forward pass are shorter, and so are those
// between two that follow each other, in which Python works for 100 us.
constexpr std::chrono::microseconds kHelperAwake{200};
// How long a caller waits awake for its helpers: where one has lost its processor to another process, sleeping soon is
// what gives it this one.
constexpr std::chrono::microseconds kCallerAwake{50};

// gate_: the helpers inside in the low bits, the most that may be inside in the high ones (0: the loop is closed), and
// between them whether the caller sleeps until the last one leaves.
constexpr uint32_t kLimitShift = 16;
constexpr uint32_t kCallerSleeps = 1U << 15;
constexpr uint32_t kInside = kCallerSleeps - 1;

std::atomic<ThreadPool*> pool = nullptr;
thread_local bool inside_loop = false;

// The parent's pool is left as it is: its threads do not exist here, and one of them may have been in the middle of it.
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr, std::memory_order_relaxed); });

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether done() became true while this thread was awake, for so long.
template <typename F>
bool awaited(const F& done, std::chrono::microseconds awake) {
  constexpr int kLooks = 16;  // between two looks at the clock, which cost more than a look at memory
  const auto end = std::chrono::steady_clock::now() + awake;
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (done()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

// Marks this thread as inside a loop.
class InsideLoop {
 public:
  InsideLoop() { inside_loop = true; }
  ~InsideLoop() { inside_loop = false; }
  InsideLoop(const InsideLoop&) = delete;
  InsideLoop& operator=(const InsideLoop&) = delete;
};

}  // namespace

// Never destroyed: when the process ends, the helpers sleep on while static objects are destroyed around them.
ThreadPool& ThreadPool::instance() {
  ThreadPool* current = pool.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  std::unique_ptr<ThreadPool> made(new ThreadPool);
  return pool.compare_exchange_strong(current, made.get(), std::memory_order_acq_rel) ? *made.release() : *current;
}

bool ThreadPool::inside() { return inside_loop; }

void ThreadPool::run(int64_t helpers, FunctionRef<void()> body) {
  if (inside_loop) return body();
  const InsideLoop mark;
  if (callers_.several()) --helpers;
  if (helpers <= 0 || taken_.exchange(true, std::memory_order_acquire)) return body();
  start(helpers);
  helpers = std::min(helpers, started_.load(std::memory_order_relaxed));
  body_ = &body;
  gate_.store(static_cast<uint32_t>(helpers) << kLimitShift, std::memory_order_release);
  ++loops_;
  wake();
  call(body);
  close();
  failed_.store(false, std::memory_order_relaxed);
  const std::exception_ptr failure = std::exchange(failure_, nullptr);
  taken_.store(false, std::memory_order_release);
  if (failure) std::rethrow_exception(failure);
}

// Helpers are started when they are first asked for. Where the system refuses more, those that there are must do.
void ThreadPool::start(int64_t helpers) {
  helpers = std::min<int64_t>(helpers, kInside);
  while (started_.load(std::memory_order_relaxed) < helpers) {
    try {
      std::thread([this, seen = loops_.load()] { serve(seen); }).detach();
    } catch (const std::system_error&) {
      return;
    }
    started_.fetch_add(1, std::memory_order_relaxed);
  }
}

// Wakes two helpers at most, as far as the loop may have more than are awake. A helper that was woken does the same
// before it begins: with many of them, no thread pays for waking them all.
void ThreadPool::wake() {
  const int64_t limit = gate_.load(std::memory_order_relaxed) >> kLimitShift;
  // asleep_ is read after loops_ was written, and wait_for_loop() does it the other way round: either the sleeper is
  // seen here, or it sees the loop.
  const int64_t asleep = asleep_.load();
  const int64_t missing = limit - (started_.load(std::memory_order_relaxed) - asleep);
  for (int64_t i = std::min<int64_t>({missing, asleep, 2}); i > 0; --i) loops_.notify_one();
}

void ThreadPool::serve(uint32_t seen) {
  inside_loop = true;  // nested loops are serial
  for (;;) {
    seen = wait_for_loop(seen);
    if (!enter()) continue;
    call(*body_);
    leave();
  }
}

// Returns the number of the loop that is not `seen`.
uint32_t ThreadPool::wait_for_loop(uint32_t seen) {
  if (!awaited([&] { return loops_.load(std::memory_order_relaxed) != seen; }, kHelperAwake)) {
    ++asleep_;
    loops_.wait(seen);
    --asleep_;
    wake();
  }
  return loops_.load();
}

// It does not matter which loop it is: that there is a limit says that its body is there and its caller waits.
bool ThreadPool::enter() {
  uint32_t gate = gate_.load(std::memory_order_relaxed);
  do {
    if ((gate & kInside) >= gate >> kLimitShift) return false;
  } while (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire, std::memory_order_relaxed));
  return true;
}

void ThreadPool::leave() {
  if (gate_.fetch_sub(1, std::memory_order_acq_rel) == (kCallerSleeps | 1)) gate_.notify_one();
}

// Lets nobody in any more and waits until nobody is inside.
void ThreadPool::close() {
  if ((gate_.fetch_and(kInside, std::memory_order_acquire) & kInside) == 0) return;
  const auto empty = [&] { return (gate_.load(std::memory_order_acquire) & kInside) == 0; };
  if (awaited(empty, kCallerAwake)) return;
  gate_.fetch_or(kCallerSleeps, std::memory_order_acq_rel);
  for (uint32_t gate = gate_.load(std::memory_order_acquire); (gate & kInside) != 0;
       gate = gate_.load(std::memory_order_acquire)) {
    gate_.wait(gate, std::memory_order_acquire);
  }
}

void ThreadPool::call(FunctionRef<void()> body) {
  try {
    body();
  } catch (...) {
    if (!failed_.exchange(true, std::memory_order_relaxed)) failure_ = std::current_exception();
  }
}

}  // namespace moco
