// PackedBatch and Results for Python.

#include <optional>
#include <string>
#include <vector>

#include "batch/features.h"
#include "batch/packed_batch.h"
#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "bindings/tensor_caster.h"
#include "core/checks.h"

namespace moco {

namespace py = pybind11;

namespace {

std::vector<bool> to_vector(const Tensor& keep) {
  MOCO_CHECK_TYPE(keep.dtype() == DType::kBool, "compact: keep must be torch.bool (got ", moco::name_of(keep.dtype()),
                  ")");
  MOCO_CHECK_VALUE(keep.dim() == 1, "compact: keep must have shape (rows) (got ", keep.sizes(), ")");
  const Tensor host = keep.contiguous();
  const bool* data = host.data<bool>();
  return std::vector<bool>(data, data + host.numel());
}

PooledToken pooled_from_name(const std::string& name) {
  if (name == "first") return PooledToken::kFirst;
  if (name == "last") return PooledToken::kLast;
  MOCO_CHECK_VALUE(false, "pooled must be one of first, last (got ", name, ")");
}

}  // namespace

void bind_batch(py::module_& m) {
  py::class_<PackedBatch>(m, "PackedBatch")
      .def(py::init(guarded([](const Tensor& attention_mask, const std::string& pooled) {
             return PackedBatch(attention_mask, pooled_from_name(pooled));
           })),
           py::arg("attention_mask"), py::kw_only(), py::arg("pooled") = "first")
      .def_static("of_lengths", guarded([](const Tensor& lengths, const std::string& pooled) {
                    return PackedBatch::of_lengths(lengths, pooled_from_name(pooled));
                  }),
                  py::arg("lengths"), py::kw_only(), py::arg("pooled") = "first")
      .def_property_readonly("rows", &PackedBatch::rows)
      .def_property_readonly("total_tokens", &PackedBatch::total_tokens)
      .def_property_readonly("max_seqlen", &PackedBatch::max_seqlen)
      .def_property_readonly("cu_seqlens", guarded([](const PackedBatch& b) { return Tensor::of(b.cu_seqlens()); }))
      .def_property_readonly("row_ids", guarded([](const PackedBatch& b) { return Tensor::of(b.row_ids()); }))
      .def("take_ids", guarded([](PackedBatch& b, const Tensor& input_ids, const std::optional<Tensor>& types) {
             b.take_ids(input_ids, types);
           }),
           py::arg("input_ids"), py::arg("token_type_ids"))
      .def_property_readonly("ids", guarded([](const PackedBatch& b) { return Tensor::of(b.ids().word); }))
      .def_property_readonly("hidden", guarded([](const PackedBatch& b) { return b.hidden(); }))
      .def("unpad", guarded([](PackedBatch& b, const Tensor& padded) { b.unpad(padded); }), py::arg("padded"))
      .def("pad", guarded([](const PackedBatch& b) { return b.pad(); }))
      .def("attention_mask", guarded([](const PackedBatch& b) { return b.attention_mask(); }))
      .def("pool", guarded([](const PackedBatch& b, const std::string& feature, std::optional<int64_t> tokens) {
             return pool(b, feature_from_name(feature), tokens.value_or(b.max_seqlen()));
           }),
           py::arg("feature"), py::kw_only(), py::arg("tokens") = py::none())
      .def("keep_mean", guarded([](PackedBatch& b) { b.keep_mean(); }))
      .def("cls", guarded([](const PackedBatch& b) { return b.cls(); }))
      .def("compact", guarded([](PackedBatch& b, const Tensor& keep) { b.compact(to_vector(keep)); }), py::arg("keep"))
      .def("keep_tokens", guarded([](PackedBatch& b, const Tensor& scores, double share) {
             MOCO_CHECK_SHAPE("keep_tokens", scores, {b.total_tokens()});
             MOCO_CHECK_DTYPE("keep_tokens", scores, DType::kFloat32);
             MOCO_CHECK_VALUE(share > 0 && share <= 1, "keep_tokens: share must be above 0 and at most 1 (got ", share,
                              ")");
             b.hidden();
             b.keep_tokens(scores.contiguous().data<float>(), share);
           }),
           py::arg("scores"), py::arg("share"))
      .def("keep_rows_of", guarded([](PackedBatch& b, const PackedBatch& survivors) { b.keep_rows_of(survivors); }),
           py::arg("survivors"));

  py::class_<BatchResults>(m, "Results")
      .def(py::init(
               guarded([](int64_t rows, int64_t classes, DType dtype) { return BatchResults(rows, classes, dtype); })),
           py::arg("rows"), py::arg("classes"), py::kw_only(), py::arg("dtype"))
      .def_property_readonly("logits", &BatchResults::logits)
      .def_property_readonly("exit_site", &BatchResults::exit_site)
      .def_property_readonly("exit_rule", &BatchResults::exit_rule)
      .def("write_last", guarded([](BatchResults& r, const PackedBatch& batch, const Tensor& logits) {
             r.write_last(batch.row_ids(), logits);
           }),
           py::arg("batch"), py::arg("logits"));
}

}  // namespace moco
