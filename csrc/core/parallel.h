// Work shared out among torch's threads.
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace moco {

// first, first + 1, ... last - 1
struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// f(begin, end) for pieces of [first, last), none but the last smaller than `grain`; an exception of f is thrown again.
// Every parallel loop of this extension goes through this one: it is at::parallel_for, but serial in a child of fork()
// that has lost its threads.
void parallel_ranges(int64_t first, int64_t last, int64_t grain, c10::function_ref<void(int64_t, int64_t)> f);

// f(task) for every task in [0, tasks), each on whichever thread is free next; on the calling thread alone where
// `flops` of work in all are too few to wake another. An exception of f is thrown again.
void parallel_tasks(int64_t tasks, int64_t flops, c10::function_ref<void(int64_t)> f);

// How many threads a parallel loop of this extension really runs on. 1 on a machine with more means that the
// extension was built without OpenMP: at::parallel_for lives in a header and is then silently serial.
int64_t parallel_threads();

// To be called where this thread may start threads from here on, here or in torch's own operations: OpenMP keeps a pool
// of them for each thread that has done so. A child of fork() has none of its parent's threads but still has the pool
// of the thread that forked, and waits for it without end in its first parallel loop.
void expect_threads();

// Whether this process is such a child: loops of this extension are then serial, and torch's own must be kept to one
// thread.
bool lost_threads();

}  // namespace moco
