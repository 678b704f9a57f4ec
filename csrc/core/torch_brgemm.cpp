#include "core/torch_brgemm.h"

#ifdef __linux__
#include <dlfcn.h>
#endif

namespace moco {

namespace {

#ifdef __linux__
template <typename F>
bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}
#endif

TorchBrgemm found;

bool find_all() {
#ifdef __linux__
  // Python has loaded it; this only asks for it.
  void* const library = dlopen("libtorch_cpu.so", RTLD_NOW | RTLD_NOLOAD);
  return library != nullptr &&
         // at::native::cpublas::brgemm of c10::BFloat16, and of unsigned and signed char
         find(library, "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb", found.bfloat16_) &&
         find(library, "_ZN2at6native7cpublas6brgemmEllllllbPKhPKaPib", found.int8) &&
         find(library, "_ZN2at6native7cpublas14brgemm_releaseEb", found.release);
#else
  return false;
#endif
}

bool has_amx() {
#if defined(MOCO_BRGEMM) && defined(MOCO_X86)
  return __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-int8");
#else
  return false;
#endif
}

}  // namespace

const TorchBrgemm* find_torch_brgemm() {
  static const bool all = find_all();
  return all ? &found : nullptr;
}

const TorchBrgemm* torch_brgemm() {
  static const TorchBrgemm* const brgemm = has_amx() ? find_torch_brgemm() : nullptr;
  return brgemm;
}

}  // namespace moco
