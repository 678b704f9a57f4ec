#include "core/isa.h"

#include <ATen/Version.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/checks.h"

namespace moco {

IsaLevel max_isa() {
  static const IsaLevel level = [] {
    constexpr std::array<std::pair<const char*, IsaLevel>, 4> levels = {{{"generic", IsaLevel::kGeneric},
                                                                         {"avx2", IsaLevel::kAvx2},
                                                                         {"avx512", IsaLevel::kAvx512},
                                                                         {"avx512_bf16", IsaLevel::kAvx512Bf16}}};
    const char* value = std::getenv("MOCO_MAX_ISA");
    if (value == nullptr) return IsaLevel::kAvx512Bf16;
    for (const auto& [name, named] : levels) {
      if (std::string(value) == name) return named;
    }
    MOCO_CHECK_VALUE(false, "MOCO_MAX_ISA must be one of generic, avx2, avx512, avx512_bf16 (got ", value, ")");
  }();
  return level;
}

const KernelTable& kernels() {
  static const KernelTable& table = []() -> const KernelTable& {
    [[maybe_unused]] const IsaLevel allowed = max_isa();
#ifdef MOCO_X86
    const std::string capability = at::get_cpu_capability();
    const IsaLevel here = capability == "AVX512" ? IsaLevel::kAvx512
                          : capability == "AVX2" ? IsaLevel::kAvx2
                                                 : IsaLevel::kGeneric;
    const IsaLevel level = std::min(here, allowed);
    if (level == IsaLevel::kAvx512) return avx512::table;
    if (level == IsaLevel::kAvx2) return avx2::table;
#endif
    return generic::table;
  }();
  return table;
}

}  // namespace moco
