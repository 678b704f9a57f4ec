// Threads that help with a loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

#include "core/callers.h"
#include "core/function_ref.h"

namespace moco {

// Its threads, the helpers, wait for the next loop awake for a moment and then asleep, so that between the loops of a
// forward pass they are at once at hand, and a process with nothing to do uses no processor time. Nobody ever waits for
// a helper that has not begun: where other processes keep it from running, its part is done by the others.
class ThreadPool {
 public:
  // The pool of this process. A child of fork() makes one anew: it has none of its parent's threads.
  static ThreadPool& instance();

  // Runs body() on this thread and at the same time on as many others as are free, `helpers` at most, perhaps none. A
  // helper may run it more than once. Returns when all have returned; an exception of one is thrown again. The body
  // takes its work in pieces until none is left, which is the longest that a helper is waited for.
  //
  // One caller has the helpers. Others at the same time are left to themselves, in the place of one helper: two callers
  // on two cores work side by side. A body that calls this itself is left to itself too.
  void run(int64_t helpers, FunctionRef<void()> body);

  // Whether this thread is in such a body.
  static bool inside();

  // How many helpers would begin at once, because they have not gone to sleep.
  int64_t awake() const { return started_.load(std::memory_order_relaxed) - asleep_.load(std::memory_order_relaxed); }

 private:
  ThreadPool() = default;
  void start(int64_t helpers);
  void wake();
  void serve(uint32_t seen);
  uint32_t wait_for_loop(uint32_t seen);
  bool enter();
  void leave();
  void close();
  void call(FunctionRef<void()> body);

  // What helpers read while they wait stands apart from what they write when they come and go.
  alignas(64) std::atomic<uint32_t> loops_ = 0;  // so many were begun
  alignas(64) std::atomic<uint32_t> gate_ = 0;   // who may come in, see enter()
  const FunctionRef<void()>* body_ = nullptr;
  alignas(64) std::atomic<int64_t> asleep_ = 0;
  std::atomic<int64_t> started_ = 0;
  Callers callers_;
  std::atomic<bool> taken_ = false;  // by a caller
  std::atomic<bool> failed_ = false;
  std::exception_ptr failure_;  // the first one, written by whoever has set failed_
};

}  // namespace moco
