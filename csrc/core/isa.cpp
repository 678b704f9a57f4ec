#include "core/isa.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "core/checks.h"

#if defined(MOCO_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace moco {

IsaLevel max_isa() {
  static const IsaLevel level = [] {
    constexpr std::array<std::pair<const char*, IsaLevel>, 6> levels = {{{"generic", IsaLevel::kGeneric},
                                                                         {"avx2", IsaLevel::kAvx2},
                                                                         {"avx512", IsaLevel::kAvx512},
                                                                         {"avx512_vnni", IsaLevel::kAvx512Vnni},
                                                                         {"avx512_bf16", IsaLevel::kAvx512Bf16},
                                                                         {"amx", IsaLevel::kAmx}}};
    const char* value = std::getenv("MOCO_MAX_ISA");
    if (value == nullptr) return IsaLevel::kAvx512Bf16;
    for (const auto& [name, named] : levels) {
      if (std::string(value) == name) return named;
    }
    MOCO_CHECK_VALUE(false, "MOCO_MAX_ISA must be one of generic, avx2, avx512, avx512_vnni, avx512_bf16, amx (got ",
                     value, ")");
  }();
  return level;
}

#ifdef MOCO_X86
// Linux keeps the registers of tiles for a process that asked for them, and refuses where it has none.
static bool may_use_tiles() {
#ifdef __linux__
  constexpr long kRequestFeature = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTiles = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestFeature, kTiles) == 0;
#else
  return false;
#endif
}

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
  if (!__builtin_cpu_supports("avx512bf16")) return IsaLevel::kAvx512Vnni;
  const bool tiles =
      has(__builtin_cpu_supports("amx-tile"), __builtin_cpu_supports("amx-int8"), __builtin_cpu_supports("amx-bf16"));
  return tiles ? IsaLevel::kAmx : IsaLevel::kAvx512Bf16;
}
#endif

const KernelTable& kernels() {
  static const KernelTable& table = []() -> const KernelTable& {
    [[maybe_unused]] const IsaLevel allowed = max_isa();
#ifdef MOCO_X86
    switch (std::min(level_of_processor(), allowed)) {
      case IsaLevel::kAmx:
        if (may_use_tiles()) return amx::table;
        [[fallthrough]];
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
