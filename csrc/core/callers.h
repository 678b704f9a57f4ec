// Whether several threads call in turns.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace moco {

// Callers that work at the same time are each between two loops now and then, so a glance at who is inside a loop does
// not tell. This remembers for a moment that two different threads have called one soon after the other; a server that
// answers one request at a time, each in another thread, is not taken for that.
class Callers {
 public:
  // Counts a call of this thread; whether other threads call too.
  bool several() {
    static std::atomic<int> threads = 0;
    static thread_local const int me = ++threads;
    const int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
    if (last_.load(std::memory_order_relaxed) != me) {
      last_.store(me, std::memory_order_relaxed);
      if (now < called_.load(std::memory_order_relaxed) + kMoment) several_until_ = now + kMoment;
    }
    called_.store(now, std::memory_order_relaxed);
    return now < several_until_.load(std::memory_order_relaxed);
  }

 private:
  // Longer than most pauses between the loops of a caller, Python's between two calls of the extension included.
  static constexpr int64_t kMoment = 1'000'000;  // nanoseconds

  std::atomic<int> last_ = 0;
  std::atomic<int64_t> called_ = 0;
  std::atomic<int64_t> several_until_ = 0;
};

}  // namespace moco
