// Work shared out among torch's threads.
#pragma once

#include <c10/util/FunctionRef.h>

#include <cstdint>

namespace moco {

// f(task) for every task in [0, tasks), each on whichever thread is free next; on the calling thread alone where
// `flops` of work in all are too few to wake another. What f threw is thrown again.
void parallel_tasks(int64_t tasks, int64_t flops, c10::function_ref<void(int64_t)> f);

}  // namespace moco
