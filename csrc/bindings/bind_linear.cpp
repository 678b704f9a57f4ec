// What this process multiplies with, and a linear layer by itself, for Python.
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "bindings/tensor_caster.h"
#include "core/checks.h"
#include "linear/products.h"
#include "linear/stages.h"

namespace moco {

namespace py = pybind11;

namespace {

template <typename T>
Tensor apply(const Tensor& x, const LinearWeights& weights, bool skip_zeros) {
  const Linear linear(weights, x.dtype(), {.skip_zeros = skip_zeros});
  const Tensor out = Tensor::empty({x.size(0), linear.outputs()}, x.dtype());
  parallel_apply(linear, static_cast<const T*>(x.bytes()), linear.inputs(), x.size(0), Activation::kNone,
                 static_cast<T*>(out.bytes()), linear.outputs());
  return out;
}

Tensor linear(const Tensor& x, const Weights& tensors, bool skip_zeros) {
  const LinearWeights weights = linear_weights(tensors);
  check_linear(weights, weights.outputs(), weights.inputs());
  MOCO_CHECK_SHAPE("linear", x, {x.size(0), weights.inputs()});
  MOCO_CHECK_TYPE(x.dtype() == DType::kFloat32 || x.dtype() == DType::kBFloat16,
                  "linear: x must be torch.float32 or torch.bfloat16 (got ", name_of(x.dtype()), ")");
  MOCO_CHECK_VALUE(x.dtype() == DType::kFloat32 || can_multiply(DType::kBFloat16),
                   "linear: x must be of a dtype that this processor multiplies (got torch.bfloat16)");
  return x.dtype() == DType::kFloat32 ? apply<float>(x.contiguous(), weights, skip_zeros)
                                      : apply<bfloat16>(x.contiguous(), weights, skip_zeros);
}

double density(const Weights& tensors, DType dtype) {
  const LinearWeights weights = linear_weights(tensors);
  check_linear(weights, weights.outputs(), weights.inputs());
  MOCO_CHECK_VALUE(can_multiply(dtype) && dtype != DType::kInt8,
                   "density: dtype must be torch.float32, or torch.bfloat16 where the processor multiplies that");
  return Linear(weights, dtype, {.skip_zeros = true}).density();
}

}  // namespace

LinearWeights linear_weights(const Weights& weights) {
  return std::visit([](const auto& tensors) { return std::make_from_tuple<LinearWeights>(tensors); }, weights);
}

void bind_linear(py::module_& m) {
  m.def("can_multiply", guarded<Work::kNone>(&can_multiply), py::arg("dtype"));
  m.def("products_of", guarded<Work::kNone>(&products_of), py::arg("dtype"));
  m.def("density", guarded(&density), py::arg("weights"), py::arg("dtype"));
  m.def("linear", guarded(&linear), py::arg("x"), py::arg("weights"), py::arg("skip_zeros") = true);
}

}  // namespace moco
