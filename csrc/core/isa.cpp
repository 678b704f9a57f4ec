#include "core/isa.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/checks.h"

namespace moco {

IsaLevel max_isa() {
  static const IsaLevel level = [] {
    constexpr std::array<std::pair<const char*, IsaLevel>, 5> levels = {{{"generic", IsaLevel::kGeneric},
                                                                         {"avx2", IsaLevel::kAvx2},
                                                                         {"avx512", IsaLevel::kAvx512},
                                                                         {"avx512_vnni", IsaLevel::kAvx512Vnni},
                                                                         {"avx512_bf16", IsaLevel::kAvx512Bf16}}};
    const char* value = std::getenv("MOCO_MAX_ISA");
    if (value == nullptr) return IsaLevel::kAvx512Bf16;
    for (const auto& [name, named] : levels) {
      if (std::string(value) == name) return named;
    }
    MOCO_CHECK_VALUE(false, "MOCO_MAX_ISA must be one of generic, avx2, avx512, avx512_vnni, avx512_bf16 (got ", value,
                     ")");
  }();
  return level;
}

#ifdef MOCO_X86
// As far as torch's own kernels go, which ATEN_CPU_CAPABILITY may bound.
static IsaLevel level_of_processor() {
  const char* value = std::getenv("ATEN_CPU_CAPABILITY");
  const std::string bound = value == nullptr ? "" : value;
  const auto has = [](auto... supported) { return (... && (supported != 0)); };
  if (bound == "default" || !has(__builtin_cpu_supports("avx2"), __builtin_cpu_supports("fma"))) {
    return IsaLevel::kGeneric;
  }
  if (bound == "avx2" || !has(__builtin_cpu_supports("avx512f"), __builtin_cpu_supports("avx512bw"),
                              __builtin_cpu_supports("avx512vl"), __builtin_cpu_supports("avx512dq"))) {
    return IsaLevel::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) return IsaLevel::kAvx512;
  return __builtin_cpu_supports("avx512bf16") ? IsaLevel::kAvx512Bf16 : IsaLevel::kAvx512Vnni;
}
#endif

const KernelTable& kernels() {
  static const KernelTable& table = []() -> const KernelTable& {
    [[maybe_unused]] const IsaLevel allowed = max_isa();
#ifdef MOCO_X86
    switch (std::min(level_of_processor(), allowed)) {
      case IsaLevel::kAvx512Bf16:
        return avx512_bf16::table;
      case IsaLevel::kAvx512Vnni:
        return avx512_vnni::table;
      case IsaLevel::kAvx512:
        return avx512::table;
      case IsaLevel::kAvx2:
        return avx2::table;
      case IsaLevel::kGeneric:
        break;
    }
#endif
    return generic::table;
  }();
  return table;
}

}  // namespace moco
