// The processor cores that this process may use.
#pragma once

#include <cstdint>
#include <filesystem>

namespace moco {

// As many as its affinity mask and the CPU quotas of its cgroups allow, rounded up, at least 1. Looked up once in a
// process; a child of fork() looks again.
int64_t allowed_cores();

// The least quota, in cores, of the cgroups that a file like /proc/self/cgroup names and of all above them, version 1
// or 2, mounted at `root` where everybody mounts them (/sys/fs/cgroup); infinity without any.
double quota_cores(const std::filesystem::path& cgroups, const std::filesystem::path& root);

}  // namespace moco
