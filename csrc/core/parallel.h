// Work shared out among threads.
#pragma once

#include <cstdint>
#include <vector>

#include "core/function_ref.h"

namespace moco {

// first, first + 1, ... last - 1
struct Range {
  int64_t first, last;
  int64_t size() const { return last - first; }
};

// f(begin, end) for pieces of [first, last), none but the last smaller than `grain`, each on whichever thread is free
// next; an exception of f is thrown again. Every parallel loop of this extension is this one or the next: torch's own
// are OpenMP's, whose threads wait for each other at a barrier, awake.
void parallel_ranges(int64_t first, int64_t last, int64_t grain, FunctionRef<void(int64_t, int64_t)> f);

// f(task) for every task in [0, tasks), each on whichever thread is free next; on the calling thread alone where
// `flops` of work in all are too few to wake another. An exception of f is thrown again.
void parallel_tasks(int64_t tasks, int64_t flops, FunctionRef<void(int64_t)> f);

// Successive ranges of so many items, each for one task of a loop: of `most` items at first, then of ever fewer, down
// to `least`, so that the threads come to an end together (guided self-scheduling, Polychronopoulos and Kuck 1987).
std::vector<Range> shrinking_ranges(int64_t items, int64_t least, int64_t most);

// From here on this thread's parallel loops may have so many threads as torch's, which is asked as a call comes in.
void set_torch_threads(int64_t threads);

// How many threads a parallel loop of this thread may have: as many as torch's, but no more than there are cores to run
// them, and inside another loop one. Torch cannot be asked whether somebody has set its number or it is the default,
// which knows no CPU quota.
int64_t loop_threads();

// How many threads work together when a loop waits for all that it may have, for a second at most.
int64_t parallel_threads();

// To be called where torch's own operations go before and after, which may start threads: OpenMP keeps a pool of them
// for each thread that has done so. A child of fork() has none of its parent's threads but still has the pool of the
// thread that forked, and waits for it without end in torch's first parallel loop.
void expect_threads();

// Whether this process is such a child: torch must be kept to one thread. Loops of this extension are not concerned.
bool lost_threads();

}  // namespace moco
