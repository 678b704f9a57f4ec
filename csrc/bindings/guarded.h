// How a call from Python enters the extension, and how an exception leaves it.
//
// With torch::wrap_pybind_function_no_gil, on one machine (torch 2.11 with CUDA 13, Python 3.12), every refusal ended
// the process with a segmentation fault. On that way an exception crosses torch's buffer of warnings and torch's
// translators, in libraries that other compilers have built. Here it does not leave the library that has thrown it:
// it is caught where the GIL is still released, becomes a plain value, and only that value is carried to where Python's
// own error is set.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/parallel.h"

namespace moco {

// Torch's headers include pybind11 too, and torch ships a copy of it: see CMakeLists.txt.
static_assert(std::string_view(MOCO_PYBIND11_VERSION)
                  .starts_with(PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR)),
              "another pybind11 than the one that CMake found came first");

// An exception as a plain value.
struct Failure {
  enum class Kind {
    kValue,
    kType,
    kIndex,
    kNotImplemented,
    kBuffer,
    kSyntax,
    kMemory,
    kRuntime,
    kLinAlg,       // torch.linalg.LinAlgError
    kOutOfMemory,  // torch.OutOfMemoryError
    kAccelerator,  // torch.AcceleratorError
    kIsSet,        // by Python code that was called on the way: its error stands already
  };
  Kind kind;
  std::string message;
};

// The exception that is being handled. Called within a catch block, without the GIL.
Failure current_failure();

// Sets Python's error and throws pybind11's word for "it is set". Called with the GIL.
[[noreturn]] void raise(const Failure& failure);

// Whether a call works on tensors: torch's operations may then start threads, see parallel.h.
enum class Work { kTensors, kNone };

namespace detail {

template <Work work, typename Result, typename... Args>
auto guard(std::function<Result(Args...)> f) {
  return [f = std::move(f)](Args... args) -> Result {
    std::optional<Failure> failure;
    std::conditional_t<std::is_void_v<Result>, bool, std::optional<Result>> result;
    {
      const pybind11::gil_scoped_release no_gil;
      try {
        if constexpr (work == Work::kTensors) expect_threads();
        if constexpr (std::is_void_v<Result>) {
          f(std::forward<Args>(args)...);
        } else {
          result.emplace(f(std::forward<Args>(args)...));
        }
      } catch (...) {
        failure = current_failure();
      }
    }
    if (failure) raise(*failure);
    if constexpr (!std::is_void_v<Result>) return std::move(*result);
  };
}

}  // namespace detail

// f, to be bound: it runs without the GIL, and what it throws arrives as a Python exception of one line.
template <Work work = Work::kTensors, typename F>
auto guarded(F f) {
  return detail::guard<work>(std::function(std::move(f)));
}

}  // namespace moco
