// The words of every boundary error: "operation: argument must <rule> (got <what was got>)".
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace moco {

// The exception with which this extension refuses something.
class Refusal : public std::runtime_error {
 public:
  enum class Kind { kValue, kType, kIndex };  // Python's ValueError, TypeError, IndexError
  Refusal(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

template <typename T>
void write_word(std::ostream& out, const T& word) {
  out << word;
}

// As Python writes a list: [2, 3].
inline void write_word(std::ostream& out, const Shape& sizes) {
  for (size_t d = 0; d < sizes.size(); ++d) out << (d == 0 ? "[" : ", ") << sizes[d];
  out << (sizes.empty() ? "[]" : "]");
}

// The words one after the other.
template <typename... Words>
std::string sentence(const Words&... words) {
  std::ostringstream out;
  (write_word(out, words), ...);
  return out.str();
}

}  // namespace moco

#define MOCO_CHECK(kind, condition, ...)                                                           \
  do {                                                                                             \
    if (!(condition)) throw moco::Refusal(moco::Refusal::Kind::kind, moco::sentence(__VA_ARGS__)); \
  } while (false)
#define MOCO_CHECK_VALUE(condition, ...) MOCO_CHECK(kValue, condition, __VA_ARGS__)
#define MOCO_CHECK_TYPE(condition, ...) MOCO_CHECK(kType, condition, __VA_ARGS__)
#define MOCO_CHECK_INDEX(condition, ...) MOCO_CHECK(kIndex, condition, __VA_ARGS__)

#define MOCO_CHECK_SHAPE(op, tensor, ...)                                                                     \
  do {                                                                                                        \
    const moco::Shape expected_shape = __VA_ARGS__;                                                           \
    MOCO_CHECK_VALUE((tensor).sizes() == expected_shape, op ": " #tensor " must have shape ", expected_shape, \
                     " (got ", (tensor).sizes(), ")");                                                        \
  } while (false)

#define MOCO_CHECK_FLOATING(what, dtype) \
  MOCO_CHECK_TYPE(moco::is_floating(dtype), what " must be floating point (got ", moco::name_of(dtype), ")")

#define MOCO_CHECK_DTYPE(op, tensor, expected)                                                                    \
  MOCO_CHECK_TYPE((tensor).dtype() == (expected), op ": " #tensor " must be ", moco::name_of(expected), " (got ", \
                  moco::name_of((tensor).dtype()), ")")
