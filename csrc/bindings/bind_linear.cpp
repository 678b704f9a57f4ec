// What this process multiplies with, and a linear layer by itself, for Python.
#include <ATen/ops/empty.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "core/checks.h"
#include "linear/products.h"
#include "linear/stages.h"

namespace moco {

namespace py = pybind11;

namespace {

template <typename T>
at::Tensor apply(const at::Tensor& x, const LinearWeights& weights, bool skip_zeros) {
  const Linear linear(weights, x.scalar_type(), {.skip_zeros = skip_zeros});
  const at::Tensor out = at::empty({x.size(0), linear.outputs()}, x.options());
  parallel_apply(linear, static_cast<const T*>(x.const_data_ptr()), linear.inputs(), x.size(0), Activation::kNone,
                 static_cast<T*>(out.mutable_data_ptr()), linear.outputs());
  return out;
}

at::Tensor linear(const at::Tensor& x, const Weights& tensors, bool skip_zeros) {
  const LinearWeights weights = linear_weights(tensors);
  check_linear(weights, weights.outputs(), weights.inputs());
  MOCO_CHECK_SHAPE("linear", x, {x.size(0), weights.inputs()});
  MOCO_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
                  "linear: x must be torch.float32 or torch.bfloat16 (got ", name_of(x.scalar_type()), ")");
  MOCO_CHECK_VALUE(x.scalar_type() == at::kFloat || can_multiply(at::kBFloat16),
                   "linear: x must be of a dtype that this processor multiplies (got torch.bfloat16)");
  return x.scalar_type() == at::kFloat ? apply<float>(x.contiguous(), weights, skip_zeros)
                                       : apply<bfloat16>(x.contiguous(), weights, skip_zeros);
}

double density(const Weights& tensors, at::ScalarType dtype) {
  const LinearWeights weights = linear_weights(tensors);
  check_linear(weights, weights.outputs(), weights.inputs());
  MOCO_CHECK_VALUE(can_multiply(dtype) && dtype != at::kChar,
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
