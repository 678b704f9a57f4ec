// moco_rt._C: converts and calls, nothing else.
#include <ATen/ops/tensor.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include <optional>
#include <string>
#include <vector>

#include "checks.h"
#include "exits.h"
#include "isa.h"
#include "packed_batch.h"
#include "results.h"

namespace py = pybind11;
using moco::Exits;
using moco::PackedBatch;
using moco::Results;

namespace {

// Without this wrapper a ValueError would reach Python as a RuntimeError with a C++ trace, and the GIL be held.
template <typename F>
auto call(F&& f) {
  return torch::wrap_pybind_function_no_gil(std::forward<F>(f));
}

std::vector<bool> to_vector(const at::Tensor& keep) {
  TORCH_CHECK_TYPE(keep.scalar_type() == at::kBool, "compact: keep must be torch.bool (got ",
                   moco::name_of(keep.scalar_type()), ")");
  TORCH_CHECK_VALUE(keep.dim() == 1, "compact: keep must have shape (rows) (got ", keep.sizes(), ")");
  const at::Tensor host = keep.cpu().contiguous();
  const bool* data = host.const_data_ptr<bool>();
  return std::vector<bool>(data, data + host.numel());
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled part of moco_rt.";
  m.def("cpu_isa", call([] { return std::string(moco::kernels().isa); }));
  m.def("parallel_threads", call(&moco::parallel_threads));

  py::class_<PackedBatch>(m, "PackedBatch")
      .def(py::init(call([](const at::Tensor& attention_mask) { return PackedBatch(attention_mask); })),
           py::arg("attention_mask"))
      .def_property_readonly("rows", &PackedBatch::rows)
      .def_property_readonly("total_tokens", &PackedBatch::total_tokens)
      .def_property_readonly("max_seqlen", &PackedBatch::max_seqlen)
      .def_property_readonly("cu_seqlens", call([](const PackedBatch& b) { return at::tensor(b.cu_seqlens()); }))
      .def_property_readonly("row_ids", call([](const PackedBatch& b) { return at::tensor(b.row_ids()); }))
      .def_property_readonly("hidden", call([](const PackedBatch& b) { return b.hidden(); }))
      .def("unpad", call([](PackedBatch& b, const at::Tensor& padded) { b.unpad(padded); }), py::arg("padded"))
      .def("pad", call([](const PackedBatch& b) { return b.pad(); }))
      .def("attention_mask", call([](const PackedBatch& b) { return b.attention_mask(); }))
      .def("pool", call([](const PackedBatch& b, const std::string& feature, std::optional<int64_t> tokens) {
             return b.pool(moco::feature_from_name(feature), tokens.value_or(b.max_seqlen()));
           }),
           py::arg("feature"), py::kw_only(), py::arg("tokens") = py::none())
      .def("compact", call([](PackedBatch& b, const at::Tensor& keep) { b.compact(to_vector(keep)); }),
           py::arg("keep"));

  py::class_<Results>(m, "Results")
      .def(py::init(call([](int64_t rows, int64_t classes, at::ScalarType dtype, at::Device device) {
             return Results(rows, classes, dtype, device);
           })),
           py::arg("rows"), py::arg("classes"), py::kw_only(), py::arg("dtype"), py::arg("device"))
      .def_property_readonly("logits", &Results::logits)
      .def_property_readonly("exit_site", &Results::exit_site)
      .def_property_readonly("exit_rule", &Results::exit_rule)
      .def("write_last", call([](Results& r, const PackedBatch& batch, const at::Tensor& logits) {
             r.write_last(batch.row_ids(), logits);
           }),
           py::arg("batch"), py::arg("logits"));

  py::class_<Exits>(m, "Exits")
      .def(py::init(call([](int64_t site, int64_t classes) { return Exits(site, classes); })), py::arg("site"),
           py::arg("classes"))
      .def("add_linear",
           call([](Exits& e, int64_t rule_id, const at::Tensor& logits, const std::string& feature,
                   const at::Tensor& weight, double bias,
                   double threshold) { e.add_linear(rule_id, logits, feature, weight, bias, threshold); }),
           py::arg("rule_id"), py::arg("logits"), py::kw_only(), py::arg("feature"), py::arg("weight"), py::arg("bias"),
           py::arg("threshold"))
      .def("add_callable",
           call([](Exits& e, int64_t rule_id, const at::Tensor& logits) { e.add_callable(rule_id, logits); }),
           py::arg("rule_id"), py::arg("logits"))
      .def("apply",
           call([](const Exits& e, PackedBatch& batch, Results& results, const std::vector<at::Tensor>& fires) {
             return e.apply(batch, results, fires);
           }),
           py::arg("batch"), py::arg("results"), py::arg("fires") = std::vector<at::Tensor>{});
}
