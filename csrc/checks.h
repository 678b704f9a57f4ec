// The words of every boundary error: "operation: argument must <rule> (got <what was got>)".
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#define MOCO_CHECK_DIM(op, tensor, n, shape) \
  TORCH_CHECK_VALUE((tensor).dim() == (n), op ": " #tensor " must have shape " shape " (got ", (tensor).sizes(), ")")

#define MOCO_CHECK_SHAPE(op, tensor, ...)                                                                        \
  do {                                                                                                           \
    const std::vector<int64_t> expected_shape = __VA_ARGS__;                                                     \
    TORCH_CHECK_VALUE((tensor).sizes() == c10::IntArrayRef(expected_shape), op ": " #tensor " must have shape ", \
                      c10::IntArrayRef(expected_shape), " (got ", (tensor).sizes(), ")");                        \
  } while (false)

#define MOCO_CHECK_FLOATING(op, tensor)                                                                         \
  TORCH_CHECK_TYPE(at::isFloatingType((tensor).scalar_type()), op ": " #tensor " must be floating point (got ", \
                   (tensor).scalar_type(), ")")

#define MOCO_CHECK_DTYPE(op, tensor, dtype)                                                         \
  TORCH_CHECK_TYPE((tensor).scalar_type() == (dtype), op ": " #tensor " must be ", dtype, " (got ", \
                   (tensor).scalar_type(), ")")

#define MOCO_CHECK_DEVICE(op, tensor, expected)                                                          \
  TORCH_CHECK_VALUE((tensor).device() == (expected), op ": " #tensor " must be on ", expected, " (got ", \
                    (tensor).device(), ")")
