#include "isa.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <set>
#include <string>
#include <vector>

namespace moco {

const KernelTable& kernels() {
  static const KernelTable& table = []() -> const KernelTable& {
#ifdef MOCO_X86
    const std::string capability = at::get_cpu_capability();
    if (capability == "AVX512") return avx512::table;
    if (capability == "AVX2") return avx2::table;
#endif
    return generic::table;
  }();
  return table;
}

int64_t parallel_threads() {
  const int64_t tasks = at::get_num_threads();
  std::vector<int> thread(static_cast<size_t>(tasks), 0);
  at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) thread[static_cast<size_t>(i)] = at::get_thread_num();
  });
  return static_cast<int64_t>(std::set<int>(thread.begin(), thread.end()).size());
}

}  // namespace moco
