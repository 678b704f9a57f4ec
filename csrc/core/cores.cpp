#include "core/cores.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <thread>

#ifdef __linux__
#include <sched.h>
#include <unistd.h>
#endif

namespace moco {

namespace fs = std::filesystem;

namespace {

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

std::atomic<int64_t> allowed = 0;  // 0: to be looked up
[[maybe_unused]] const int registered =
    pthread_atfork(nullptr, nullptr, [] { allowed.store(0, std::memory_order_relaxed); });

double cores_of(double microseconds, double period) {
  return microseconds > 0 && period > 0 ? microseconds / period : kNoQuota;
}

// Version 2: "max 100000" or "150000 100000".
double quota_in(const fs::path& cpu_max) {
  double microseconds = 0;
  double period = 0;
  std::ifstream(cpu_max) >> microseconds >> period;
  return cores_of(microseconds, period);
}

// Version 1: two files, and -1 for no quota.
double quota_in(const fs::path& cfs_quota, const fs::path& cfs_period) {
  double microseconds = 0;
  double period = 0;
  std::ifstream(cfs_quota) >> microseconds;
  std::ifstream(cfs_period) >> period;
  return cores_of(microseconds, period);
}

// Of a cgroup and all above it. In a container the path may be the host's, of which only the end exists here: the
// container's own cgroup.
double least_quota(const fs::path& mount, const fs::path& cgroup) {
  double least = kNoQuota;
  for (fs::path folder = cgroup.relative_path();; folder = folder.parent_path()) {
    const fs::path here = mount / folder;
    least =
        std::min({least, quota_in(here / "cpu.max"), quota_in(here / "cpu.cfs_quota_us", here / "cpu.cfs_period_us")});
    if (folder.empty()) return least;
  }
}

// The main thread's mask: a thread that was given a core of its own does not speak for the others.
int64_t affinity_cores() {
#ifdef __linux__
  constexpr size_t kMostCores = 1 << 16;
  for (size_t cores = 1024; cores <= kMostCores; cores *= 2) {  // too small a mask is refused
    cpu_set_t* mask = CPU_ALLOC(cores);
    if (mask == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(cores);
    const int64_t count = sched_getaffinity(getpid(), bytes, mask) == 0 ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (count > 0) return count;
  }
#endif
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

}  // namespace

double quota_cores(const fs::path& cgroups, const fs::path& root) {
  double least = kNoQuota;
  std::ifstream lines(cgroups);
  for (std::string line; std::getline(lines, line);) {  // "0::/path" or "4:cpu,cpuacct:/path"
    const size_t names = line.find(':') + 1;
    const size_t path = line.find(':', names) + 1;
    if (names == 0 || path == 0) continue;
    const std::string controllers = line.substr(names, path - 1 - names);
    if (controllers.empty()) {
      least = std::min(least, least_quota(root, line.substr(path)));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      least = std::min(least, least_quota(root / "cpu", line.substr(path)));
    }
  }
  return least;
}

int64_t allowed_cores() {
  if (const int64_t known = allowed.load(std::memory_order_relaxed); known > 0) return known;
  const double quota = std::ceil(quota_cores("/proc/self/cgroup", "/sys/fs/cgroup"));
  const int64_t cores = affinity_cores();
  const int64_t found = quota < static_cast<double>(cores) ? std::max<int64_t>(1, static_cast<int64_t>(quota)) : cores;
  allowed.store(found, std::memory_order_relaxed);
  return found;
}

}  // namespace moco
