// The words of every boundary error: "operation: argument must <rule> (got <what was got>)".
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include <string>
#include <vector>

namespace moco {

// As Python writes it: torch.float32.
inline std::string name_of(at::ScalarType dtype) { return "torch." + std::string(c10::getDtypeNames(dtype).first); }

}  // namespace moco

#define MOCO_CHECK_SHAPE(op, tensor, ...)                                                                        \
  do {                                                                                                           \
    const std::vector<int64_t> expected_shape = __VA_ARGS__;                                                     \
    TORCH_CHECK_VALUE((tensor).sizes() == c10::IntArrayRef(expected_shape), op ": " #tensor " must have shape ", \
                      c10::IntArrayRef(expected_shape), " (got ", (tensor).sizes(), ")");                        \
  } while (false)

#define MOCO_CHECK_FLOATING(what, dtype) \
  TORCH_CHECK_TYPE(at::isFloatingType(dtype), what " must be floating point (got ", moco::name_of(dtype), ")")

#define MOCO_CHECK_DTYPE(op, tensor, dtype)                                                                        \
  TORCH_CHECK_TYPE((tensor).scalar_type() == (dtype), op ": " #tensor " must be ", moco::name_of(dtype), " (got ", \
                   moco::name_of((tensor).scalar_type()), ")")

#define MOCO_CHECK_DEVICE(op, tensor, expected)                                                          \
  TORCH_CHECK_VALUE((tensor).device() == (expected), op ": " #tensor " must be on ", expected, " (got ", \
                    (tensor).device(), ")")
