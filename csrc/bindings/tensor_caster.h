// torch.Tensor and torch.dtype as arguments and results of bound functions.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "tensor/tensor.h"

namespace moco {

// The tensor of a torch.Tensor, which share their memory; none of another object. Throws a ValueError where it has
// no memory on the CPU, a TypeError where its dtype is none of DType's.
std::optional<Tensor> from_torch(pybind11::handle object);
// A torch.Tensor that shares the memory of a tensor; None of an undefined one.
pybind11::object to_torch(const Tensor& tensor);

// The dtype of a torch.dtype; none of another object, or of another dtype.
std::optional<DType> dtype_from_torch(pybind11::handle object);
pybind11::object dtype_to_torch(DType dtype);

}  // namespace moco

namespace pybind11::detail {

template <>
struct type_caster<moco::Tensor> {
  PYBIND11_TYPE_CASTER(moco::Tensor, const_name("torch.Tensor"));

  bool load(handle source, bool /*convert*/) {
    std::optional<moco::Tensor> tensor = moco::from_torch(source);
    if (tensor) value = *std::move(tensor);
    return tensor.has_value();
  }
  static handle cast(const moco::Tensor& tensor, return_value_policy /*policy*/, handle /*parent*/) {
    return moco::to_torch(tensor).release();
  }
};

template <>
struct type_caster<moco::DType> {
  PYBIND11_TYPE_CASTER(moco::DType, const_name("torch.dtype"));

  bool load(handle source, bool /*convert*/) {
    const std::optional<moco::DType> dtype = moco::dtype_from_torch(source);
    if (dtype) value = *dtype;
    return dtype.has_value();
  }
  static handle cast(moco::DType dtype, return_value_policy /*policy*/, handle /*parent*/) {
    return moco::dtype_to_torch(dtype).release();
  }
};

}  // namespace pybind11::detail
