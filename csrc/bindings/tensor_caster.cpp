
#include "bindings/tensor_caster.h"

#include <pybind11/gil_safe_call_once.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "bindings/dlpack.h"

namespace moco {

namespace py = pybind11;

namespace {

constexpr std::array kDTypes = {DType::kBool,  DType::kUInt8,   DType::kInt8,     DType::kInt16,   DType::kInt32,
                                DType::kInt64, DType::kFloat16, DType::kBFloat16, DType::kFloat32, DType::kFloat64};

// What is asked of torch.
struct Torch {
  py::object module = py::module_::import("torch");
  py::object tensor = module.attr("Tensor");
  py::object dtype = module.attr("dtype");
  py::object to_dlpack = module.attr("utils").attr("dlpack").attr("to_dlpack");
  py::object from_dlpack = module.attr("utils").attr("dlpack").attr("from_dlpack");
};

const Torch& torch() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> storage;
  return storage.call_once_and_store_result([] { return Torch(); }).get_stored();
}

uint8_t code_of(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return dlpack::kBool;
    case DType::kUInt8:
      return dlpack::kUInt;
    case DType::kBFloat16:
      return dlpack::kBFloat;
    default:
      return is_floating(dtype) ? dlpack::kFloat : dlpack::kInt;
  }
}

std::string text_of(const py::object& object) { return py::str(object).cast<std::string>(); }

std::optional<DType> dtype_of(dlpack::DataType type) {
  for (const DType dtype : kDTypes) {
    if (type.lanes == 1 && type.code == code_of(dtype) && type.bits == 8 * element_size(dtype)) return dtype;
  }
  return std::nullopt;
}

[[noreturn]] void refuse(py::handle object) {
  throw py::value_error("a tensor must be dense and on cpu (got " + text_of(object.attr("layout")) + " on " +
                        text_of(object.attr("device")) + ")");
}

// The capsule of a torch.Tensor.
py::object exported(py::handle object) {
  try {
    // Numbers whose sign torch keeps beside their memory.
    if (object.attr("is_neg")().cast<bool>()) return torch().to_dlpack(object.attr("resolve_neg")());
    // A parameter's `.data` may be set while its memory is read here: a tensor beside it keeps that memory.
    if (!py::type::handle_of(object).is(torch().tensor)) return torch().to_dlpack(object.attr("detach")());
    return torch().to_dlpack(object);
  } catch (const py::error_already_set&) {  // it has no memory that could be handed over
    refuse(object);
  }
}

// What keeps the memory of a tensor that Python holds, with the shape that it is told.
struct Export {
  Tensor tensor;
  Shape sizes, strides;
  dlpack::ManagedArray managed;
};

// Called by whoever destroys a capsule that nobody has taken the array from.
void drop(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, dlpack::kCapsule) == 0) return;
  auto* managed = static_cast<dlpack::ManagedArray*>(PyCapsule_GetPointer(capsule, dlpack::kCapsule));
  managed->deleter(managed);
}

}  // namespace

std::optional<Tensor> from_torch(py::handle object) {
  if (!py::isinstance(object, torch().tensor)) return std::nullopt;
  const py::object capsule = exported(object);
  auto* managed = static_cast<dlpack::ManagedArray*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
  if (managed == nullptr) throw py::error_already_set();
  PyCapsule_SetName(capsule.ptr(), dlpack::kTaken);
  std::shared_ptr<void> owner(managed, [](dlpack::ManagedArray* taken) { taken->deleter(taken); });
  const dlpack::Array& array = managed->array;
  if (array.device.type != dlpack::kCpu && array.device.type != dlpack::kCudaHost) refuse(object);
  const std::optional<DType> dtype = dtype_of(array.dtype);
  if (!dtype) {
    throw py::type_error("a tensor's dtype must be one that is computed with here (got " +
                         text_of(object.attr("dtype")) + ")");
  }
  Shape sizes(array.shape, array.shape + array.ndim);
  Shape strides(array.strides, array.strides + array.ndim);
  void* const data = static_cast<char*>(array.data) + array.byte_offset;
  return Tensor(std::move(owner), data, *dtype, std::move(sizes), std::move(strides));
}

py::object to_torch(const Tensor& tensor) {
  if (!tensor.defined()) return py::none();
  const auto bits = static_cast<uint8_t>(8 * element_size(tensor.dtype()));
  auto kept = std::make_unique<Export>(Export{tensor, tensor.sizes(), tensor.strides(), {}});
  kept->managed = {.array = {.data = tensor.bytes(),
                             .device = {dlpack::kCpu, 0},
                             .ndim = static_cast<int32_t>(tensor.dim()),
                             .dtype = {code_of(tensor.dtype()), bits, 1},
                             .shape = kept->sizes.data(),
                             .strides = kept->strides.data(),
                             .byte_offset = 0},
                   .manager = kept.get(),
                   .deleter = [](dlpack::ManagedArray* managed) { delete static_cast<Export*>(managed->manager); }};
  const auto capsule = py::reinterpret_steal<py::object>(PyCapsule_New(&kept->managed, dlpack::kCapsule, drop));
  if (!capsule) throw py::error_already_set();
  kept.release();  // it is the capsule's, and then torch's
  return torch().from_dlpack(capsule);
}

std::optional<DType> dtype_from_torch(py::handle object) {
  if (!py::isinstance(object, torch().dtype)) return std::nullopt;
  const auto name = py::str(object).cast<std::string>();
  for (const DType dtype : kDTypes) {
    if (name == name_of(dtype)) return dtype;
  }
  return std::nullopt;
}

py::object dtype_to_torch(DType dtype) {
  const std::string name = name_of(dtype);
  return torch().module.attr(name.substr(name.find('.') + 1).c_str());
}

}  // namespace moco
