// The words of every boundary error: "operation: argument must <rule> (got <what was got>)".
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/StringUtil.h>

#include <stdexcept>
#include <string>
#include <vector>

namespace moco {

// The exception with which this extension refuses something. It is light and our own on purpose: c10::Error takes a
// backtrace when it is thrown, and belongs to another library that may have been built by another compiler.
class Refusal : public std::runtime_error {
 public:
  enum class Kind { kValue, kType, kIndex };  // Python's ValueError, TypeError, IndexError
  Refusal(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// As Python writes it: torch.float32.
inline std::string name_of(at::ScalarType dtype) { return "torch." + std::string(c10::getDtypeNames(dtype).first); }

}  // namespace moco

#define MOCO_CHECK(kind, condition, ...)                                                     \
  do {                                                                                       \
    if (!(condition)) throw moco::Refusal(moco::Refusal::Kind::kind, c10::str(__VA_ARGS__)); \
  } while (false)
#define MOCO_CHECK_VALUE(condition, ...) MOCO_CHECK(kValue, condition, __VA_ARGS__)
#define MOCO_CHECK_TYPE(condition, ...) MOCO_CHECK(kType, condition, __VA_ARGS__)
#define MOCO_CHECK_INDEX(condition, ...) MOCO_CHECK(kIndex, condition, __VA_ARGS__)

#define MOCO_CHECK_SHAPE(op, tensor, ...)                                                                       \
  do {                                                                                                          \
    const std::vector<int64_t> expected_shape = __VA_ARGS__;                                                    \
    MOCO_CHECK_VALUE((tensor).sizes() == c10::IntArrayRef(expected_shape), op ": " #tensor " must have shape ", \
                     c10::IntArrayRef(expected_shape), " (got ", (tensor).sizes(), ")");                        \
  } while (false)

#define MOCO_CHECK_FLOATING(what, dtype) \
  MOCO_CHECK_TYPE(at::isFloatingType(dtype), what " must be floating point (got ", moco::name_of(dtype), ")")

#define MOCO_CHECK_DTYPE(op, tensor, dtype)                                                                       \
  MOCO_CHECK_TYPE((tensor).scalar_type() == (dtype), op ": " #tensor " must be ", moco::name_of(dtype), " (got ", \
                  moco::name_of((tensor).scalar_type()), ")")

#define MOCO_CHECK_DEVICE(op, tensor, expected)                                                         \
  MOCO_CHECK_VALUE((tensor).device() == (expected), op ": " #tensor " must be on ", expected, " (got ", \
                   (tensor).device(), ")")
