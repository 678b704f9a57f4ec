// TransformerClassifier and its weights for Python.
#include <pybind11/stl.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "batch/packed_batch.h"
#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "bindings/tensor_caster.h"
#include "core/checks.h"
#include "linear/products.h"
#include "transformer/model.h"
#include "transformer/spec.h"
#include "transformer/varlen_attention.h"

namespace moco {

namespace py = pybind11;

namespace {

// Of every token: its context, (tokens, heads, d), and what it receives of attention.
std::pair<Tensor, Tensor> attention(const Tensor& qkv, const std::vector<int32_t>& cu_seqlens, bool int16,
                                    int64_t before, int64_t behind) {
  MOCO_CHECK_VALUE(qkv.dim() == 4 && qkv.size(1) == 3 && qkv.numel() > 0,
                   "attention: qkv must have shape (tokens, 3, heads, d), each at least 1 (got ", qkv.sizes(), ")");
  MOCO_CHECK_VALUE(cu_seqlens.size() > 1 && cu_seqlens[0] == 0 && cu_seqlens.back() == qkv.size(0) &&
                       std::is_sorted(cu_seqlens.begin(), cu_seqlens.end(), std::less_equal<>()),
                   "attention: cu_seqlens must rise from 0 to the number of tokens, ", qkv.size(0));
  MOCO_CHECK_VALUE(can_multiply(qkv.dtype()) && qkv.dtype() != DType::kInt8,
                   "attention: qkv must be float32, or bfloat16 where the processor multiplies that");
  MOCO_CHECK_VALUE(qkv.size(3) % 2 == 0 && (!int16 || qkv.dtype() == DType::kFloat32),
                   "attention: d must be even, and qkv float32 for int16");
  const Tensor projected = qkv.clone();
  const auto rows = static_cast<int64_t>(cu_seqlens.size()) - 1;
  const HeadLayout layout{qkv.size(2), qkv.size(2), qkv.size(3)};
  const KeyRange keys{before, behind};
  const Tensor noted = Tensor::empty({qkv.size(0)}, DType::kFloat32);
  auto* received = noted.data<float>();
  if (int16) {
    varlen_attention_int16(projected.data<float>(), cu_seqlens.data(), rows, layout, keys, {}, received);
  } else if (qkv.dtype() == DType::kFloat32) {
    varlen_attention(projected.data<float>(), cu_seqlens.data(), rows, layout, keys, {}, {}, received);
  } else {
    varlen_attention(static_cast<bfloat16*>(projected.bytes()), cu_seqlens.data(), rows, layout, keys, {}, {},
                     received);
  }
  return {projected.select(1, 0).clone(), noted};
}

}  // namespace

void bind_transformer(py::module_& m) {
  m.def("attention",
        guarded([](const Tensor& qkv, const std::vector<int32_t>& cu_seqlens, bool int16, int64_t before,
                   int64_t behind) { return attention(qkv, cu_seqlens, int16, before, behind).first; }),
        py::arg("qkv"), py::arg("cu_seqlens"), py::arg("int16") = false, py::arg("before") = KeyRange::kAll,
        py::arg("behind") = KeyRange::kAll);
  m.def("received_attention",
        guarded([](const Tensor& qkv, const std::vector<int32_t>& cu_seqlens, bool int16, int64_t before,
                   int64_t behind) { return attention(qkv, cu_seqlens, int16, before, behind).second; }),
        py::arg("qkv"), py::arg("cu_seqlens"), py::arg("int16") = false, py::arg("before") = KeyRange::kAll,
        py::arg("behind") = KeyRange::kAll);

  py::class_<NormSpec>(m, "NormSpec")
      .def(py::init(guarded([](Affine weights, double eps, bool rms) { return NormSpec{weights, eps, rms}; })),
           py::arg("weights"), py::arg("eps"), py::kw_only(), py::arg("rms") = false);
  py::class_<EmbeddingSpec>(m, "EmbeddingSpec")
      .def(py::init(guarded([](Tensor words, std::optional<NormSpec> norm, std::optional<Tensor> positions,
                               std::optional<Tensor> types, std::optional<Affine> projection,
                               std::optional<int64_t> padding_idx, double scale) {
             return EmbeddingSpec{words, positions, types, scale, norm, projection, padding_idx};
           })),
           py::kw_only(), py::arg("words"), py::arg("norm") = py::none(), py::arg("positions") = py::none(),
           py::arg("types") = py::none(), py::arg("projection") = py::none(), py::arg("padding_idx") = py::none(),
           py::arg("scale") = 1.0);
  py::class_<PatchEmbeddingSpec>(m, "PatchEmbeddingSpec")
      .def(py::init(guarded([](Affine projection, Tensor first_tokens, Tensor positions,
                               const std::vector<int64_t>& image_size, const std::vector<int64_t>& patch_size) {
             return PatchEmbeddingSpec{projection, first_tokens, positions, image_size, patch_size};
           })),
           py::kw_only(), py::arg("projection"), py::arg("first_tokens"), py::arg("positions"), py::arg("image_size"),
           py::arg("patch_size"));
  py::class_<DistanceBias>(m, "DistanceBias")
      .def(py::init(guarded([](Tensor values) { return DistanceBias{values}; })), py::arg("values"));
  py::class_<DisentangledBias>(m, "DisentangledBias")
      .def(py::init(guarded([](Tensor buckets, std::optional<Tensor> keys, std::optional<Tensor> queries) {
             return DisentangledBias{buckets, keys, queries};
           })),
           py::arg("buckets"), py::kw_only(), py::arg("keys") = py::none(), py::arg("queries") = py::none());
  py::class_<AttentionSpec>(m, "AttentionSpec")
      .def(py::init(guarded([](const Weights& query, const Weights& key, const Weights& value, const Weights& output,
                               int64_t heads, std::optional<int64_t> kv_heads, int64_t before, int64_t behind,
                               std::optional<NormSpec> query_norm, std::optional<NormSpec> key_norm,
                               std::optional<std::pair<Tensor, Tensor>> rope,
                               const std::optional<std::variant<DistanceBias, DisentangledBias>>& bias, double keep) {
             AttentionSpec spec{linear_weights(query),
                                linear_weights(key),
                                linear_weights(value),
                                linear_weights(output),
                                heads,
                                kv_heads.value_or(heads),
                                {before, behind},
                                query_norm,
                                key_norm,
                                std::nullopt,
                                std::monostate{}};
             if (bias) std::visit([&](const auto& given) { spec.bias = given; }, *bias);
             if (rope) spec.rope = Rope{rope->first, rope->second};
             spec.keep = keep;
             return spec;
           })),
           py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("output"), py::arg("heads"),
           py::arg("kv_heads") = py::none(), py::arg("before") = KeyRange::kAll, py::arg("behind") = KeyRange::kAll,
           py::arg("query_norm") = py::none(), py::arg("key_norm") = py::none(), py::arg("rope") = py::none(),
           py::arg("bias") = py::none(), py::arg("keep") = 1.0);
  py::class_<FeedForwardSpec>(m, "FeedForwardSpec")
      .def(py::init(guarded([](const Weights& up, const Weights& down, const std::string& activation,
                               const std::optional<Weights>& gate) {
             FeedForwardSpec spec{linear_weights(up), linear_weights(down), std::nullopt, activation};
             if (gate) spec.gate = linear_weights(*gate);
             return spec;
           })),
           py::kw_only(), py::arg("up"), py::arg("down"), py::arg("activation"), py::arg("gate") = py::none());
  py::class_<SubLayerNorms>(m, "SubLayerNorms")
      .def(py::init(guarded([](std::optional<NormSpec> before, std::optional<NormSpec> output,
                               std::optional<NormSpec> after) { return SubLayerNorms{before, output, after}; })),
           py::kw_only(), py::arg("before") = py::none(), py::arg("output") = py::none(),
           py::arg("after") = py::none());
  py::class_<LayerSpec>(m, "LayerSpec")
      .def(py::init(guarded([](const AttentionSpec& attention, const SubLayerNorms& around_attention,
                               const FeedForwardSpec& feed_forward, const SubLayerNorms& around_feed_forward) {
             return LayerSpec{attention, around_attention, feed_forward, around_feed_forward};
           })),
           py::kw_only(), py::arg("attention"), py::arg("around_attention"), py::arg("feed_forward"),
           py::arg("around_feed_forward"));
  py::class_<HeadSpec>(m, "HeadSpec")
      .def(py::init(guarded([](std::optional<Affine> output, std::optional<Affine> dense, std::string activation,
                               std::optional<NormSpec> norm, std::optional<NormSpec> final_norm, std::string pooling) {
             return HeadSpec{final_norm, pooling, dense, activation, norm, output};
           })),
           py::kw_only(), py::arg("output") = py::none(), py::arg("dense") = py::none(), py::arg("activation") = "",
           py::arg("norm") = py::none(), py::arg("final_norm") = py::none(), py::arg("pooling") = "token");

  py::class_<TransformerClassifier>(m, "TransformerClassifier")
      .def(py::init(guarded([](const std::variant<EmbeddingSpec, PatchEmbeddingSpec>& embeddings,
                               const std::vector<LayerSpec>& layers, const HeadSpec& head, DType dtype,
                               const std::optional<std::vector<int64_t>>& order) {
             return std::make_unique<TransformerClassifier>(embeddings, layers, head, dtype, order);
           })),
           py::arg("embeddings"), py::arg("layers"), py::arg("head"), py::kw_only(), py::arg("dtype"),
           py::arg("order") = py::none())
      .def_property_readonly("reads_one_token", &TransformerClassifier::reads_one_token)
      .def("folds_keys",
           guarded<Work::kNone>([](const TransformerClassifier& e, int64_t layer) { return e.folds_keys(layer); }),
           py::arg("layer"))
      .def("densities", guarded([](const TransformerClassifier& e, int64_t layer) { return e.densities(layer); }),
           py::arg("layer"))
      .def_property_readonly("num_layers", &TransformerClassifier::num_layers)
      .def_property_readonly("num_classes", &TransformerClassifier::num_classes)
      .def_property_readonly("dtype", &TransformerClassifier::dtype)
      .def("embed", guarded([](const TransformerClassifier& e, PackedBatch& batch) { e.embed(batch); }),
           py::arg("batch"))
      .def("check_ids", guarded([](const TransformerClassifier& e, const PackedBatch& batch) { e.check_ids(batch); }),
           py::arg("batch"))
      .def("embed_images", guarded([](const TransformerClassifier& e, PackedBatch& batch, const Tensor& pixel_values) {
             e.embed_images(batch, pixel_values);
           }),
           py::arg("batch"), py::arg("pixel_values"))
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
      .def("finish", guarded([](const TransformerClassifier& e, PackedBatch& batch) { e.finish(batch); }),
           py::arg("batch"))
      .def("classify",
           guarded([](const TransformerClassifier& e, const PackedBatch& batch) { return e.classify(batch); }),
           py::arg("batch"));
}

}  // namespace moco
