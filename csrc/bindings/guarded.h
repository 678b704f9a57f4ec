// How a call from Python enters the extension, and how an exception leaves it.
//
// An exception is caught where the GIL is still released and becomes a plain value, which is carried to where Python's
// own error is set: no other library's translators of exceptions, torch's for one, are asked.
#pragma once

#include <pybind11/pybind11.h>

#include <functional>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "core/parallel.h"

namespace moco {

// An exception as a plain value. kIsSet: Python code that was called on the way has set its error already.
struct Failure {
  enum class Kind { kValue, kType, kIndex, kMemory, kRuntime, kIsSet };
  Kind kind;
  std::string message;
};

// The exception that is being handled. Called within a catch block, without the GIL.
Failure current_failure();

// Sets Python's error and throws pybind11's word for "it is set". Called with the GIL.
[[noreturn]] void raise(const Failure& failure);

// Whether a call works on tensors: it may then have threads, see parallel.h.
enum class Work { kTensors, kNone };

// torch.get_num_threads(). Called with the GIL.
int64_t torch_threads();

namespace detail {

template <Work work, typename Result, typename... Args>
auto guard(std::function<Result(Args...)> f) {
  return [f = std::move(f)](Args... args) -> Result {
    std::optional<Failure> failure;
    std::conditional_t<std::is_void_v<Result>, bool, std::optional<Result>> result;
    if constexpr (work == Work::kTensors) set_torch_threads(torch_threads());
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
