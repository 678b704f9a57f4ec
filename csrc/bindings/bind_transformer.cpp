// TransformerClassifier and its weights for Python.
#include <ATen/ops/clone.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "batch/packed_batch.h"
#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "core/checks.h"
#include "linear/products.h"
#include "transformer/model.h"
#include "transformer/varlen_attention.h"
#include "transformer/weights.h"

namespace moco {

namespace py = pybind11;

namespace {

at::Tensor attention(const at::Tensor& qkv, const std::vector<int32_t>& cu_seqlens, bool int16) {
  MOCO_CHECK_VALUE(qkv.dim() == 4 && qkv.size(1) == 3, "attention: qkv must have shape (tokens, 3, heads, d)");
  MOCO_CHECK_VALUE(cu_seqlens.size() > 1 && cu_seqlens[0] == 0 && cu_seqlens.back() == qkv.size(0) &&
                       std::is_sorted(cu_seqlens.begin(), cu_seqlens.end(), std::less_equal<>()),
                   "attention: cu_seqlens must rise from 0 to the number of tokens, ", qkv.size(0));
  MOCO_CHECK_VALUE(can_multiply(qkv.scalar_type()) && qkv.scalar_type() != at::kChar,
                   "attention: qkv must be float32, or bfloat16 where the processor multiplies that");
  MOCO_CHECK_VALUE(qkv.size(3) % 2 == 0 && (!int16 || qkv.scalar_type() == at::kFloat),
                   "attention: d must be even, and qkv float32 for int16");
  const at::Tensor projected = qkv.clone(at::MemoryFormat::Contiguous);
  const auto rows = static_cast<int64_t>(cu_seqlens.size()) - 1;
  const int64_t heads = qkv.size(2);
  const int64_t d = qkv.size(3);
  if (int16) {
    varlen_attention_int16(projected.mutable_data_ptr<float>(), cu_seqlens.data(), rows, heads, d);
  } else if (qkv.scalar_type() == at::kFloat) {
    varlen_attention(projected.mutable_data_ptr<float>(), cu_seqlens.data(), rows, heads, d);
  } else {
    varlen_attention(static_cast<bfloat16*>(projected.mutable_data_ptr()), cu_seqlens.data(), rows, heads, d);
  }
  return projected.select(1, 0).contiguous();
}

}  // namespace

void bind_transformer(py::module_& m) {
  m.def("attention", guarded(&attention), py::arg("qkv"), py::arg("cu_seqlens"), py::arg("int16") = false);

  py::class_<EmbeddingWeights>(m, "EmbeddingWeights")
      .def(py::init(guarded([](at::Tensor words, at::Tensor positions, std::optional<at::Tensor> types, Affine norm,
                               std::optional<Affine> projection, std::optional<int64_t> padding_idx) {
             return EmbeddingWeights{words, positions, types, norm, projection, padding_idx};
           })),
           py::kw_only(), py::arg("words"), py::arg("positions"), py::arg("types"), py::arg("norm"),
           py::arg("projection") = py::none(), py::arg("padding_idx") = py::none());
  py::class_<LayerWeights>(m, "LayerWeights")
      .def(py::init(guarded([](const Weights& query, const Weights& key, const Weights& value,
                               const Weights& attention_output, Affine attention_norm, const Weights& intermediate,
                               const Weights& output, Affine output_norm) {
             return LayerWeights{linear_weights(query),  linear_weights(key),
                                 linear_weights(value),  linear_weights(attention_output),
                                 attention_norm,         linear_weights(intermediate),
                                 linear_weights(output), output_norm};
           })),
           py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attention_output"),
           py::arg("attention_norm"), py::arg("intermediate"), py::arg("output"), py::arg("output_norm"));
  py::class_<HeadWeights>(m, "HeadWeights")
      .def(py::init(guarded([](Affine dense, std::string activation, Affine output) {
             return HeadWeights{dense, activation, output};
           })),
           py::kw_only(), py::arg("dense"), py::arg("activation"), py::arg("output"));

  py::class_<TransformerClassifier>(m, "TransformerClassifier")
      .def(py::init(guarded([](const EmbeddingWeights& embeddings, const std::vector<LayerWeights>& layers,
                               const HeadWeights& head, int64_t heads, const std::string& activation, double eps,
                               at::ScalarType dtype) {
             return std::make_unique<TransformerClassifier>(embeddings, layers, head, heads, activation, eps, dtype);
           })),
           py::arg("embeddings"), py::arg("layers"), py::arg("head"), py::kw_only(), py::arg("heads"),
           py::arg("activation"), py::arg("eps"), py::arg("dtype"))
      .def_property_readonly("num_layers", &TransformerClassifier::num_layers)
      .def_property_readonly("num_classes", &TransformerClassifier::num_classes)
      .def_property_readonly("dtype", &TransformerClassifier::dtype)
      .def("embed",
           guarded([](const TransformerClassifier& e, PackedBatch& batch, const at::Tensor& input_ids,
                      const std::optional<at::Tensor>& token_type_ids) { e.embed(batch, input_ids, token_type_ids); }),
           py::arg("batch"), py::arg("input_ids"), py::arg("token_type_ids"))
      .def("attention", guarded([](const TransformerClassifier& e, int64_t layer, PackedBatch& batch) {
             e.attention(layer, batch);
           }),
           py::arg("layer"), py::arg("batch"))
      .def("feed_forward", guarded([](const TransformerClassifier& e, int64_t layer, PackedBatch& batch) {
             e.feed_forward(layer, batch);
           }),
           py::arg("layer"), py::arg("batch"))
      .def("peek", guarded([](const TransformerClassifier& e, int64_t layer, const PackedBatch& batch) {
             return e.peek(layer, batch);
           }),
           py::arg("layer"), py::arg("batch"))
      .def("classify",
           guarded([](const TransformerClassifier& e, const PackedBatch& batch) { return e.classify(batch); }),
           py::arg("batch"));
}

}  // namespace moco
