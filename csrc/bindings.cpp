// moco_rt._C: converts and calls, nothing else.
#include <ATen/ops/tensor.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "checks.h"
#include "encoder.h"
#include "exits.h"
#include "guarded.h"
#include "isa.h"
#include "off_ramp.h"
#include "packed_batch.h"
#include "parallel.h"
#include "profile.h"
#include "results.h"

namespace py = pybind11;
using moco::Affine;
using moco::Encoder;
using moco::Exits;
using moco::guarded;
using moco::LayerWeights;
using moco::LinearWeights;
using moco::OffRamp;
using moco::PackedBatch;
using moco::Results;
using moco::Work;

namespace {

std::vector<bool> to_vector(const at::Tensor& keep) {
  MOCO_CHECK_TYPE(keep.scalar_type() == at::kBool, "compact: keep must be torch.bool (got ",
                  moco::name_of(keep.scalar_type()), ")");
  MOCO_CHECK_VALUE(keep.dim() == 1, "compact: keep must have shape (rows) (got ", keep.sizes(), ")");
  const at::Tensor host = keep.cpu().contiguous();
  const bool* data = host.const_data_ptr<bool>();
  return std::vector<bool>(data, data + host.numel());
}

// Weight and bias, and of int8 weights scale and smooth too.
using Weights = std::variant<Affine, std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>>;

LinearWeights linear(const Weights& weights) {
  return std::visit([](const auto& tensors) { return std::make_from_tuple<LinearWeights>(tensors); }, weights);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled part of moco_rt.";
  m.def("cpu_isa", guarded<Work::kNone>([] { return std::string(moco::kernels().isa); }));
  m.def("can_multiply", guarded<Work::kNone>(&moco::can_multiply), py::arg("dtype"));
  m.def("parallel_threads", guarded(&moco::parallel_threads));
  m.def("lost_threads", guarded<Work::kNone>(&moco::lost_threads));
  m.def("refuse_in_parallel", guarded([](int64_t tasks) {
          constexpr int64_t kManyFlops = int64_t{1} << 40;  // worth waking every thread
          moco::parallel_tasks(tasks, kManyFlops, [&](int64_t task) {
            MOCO_CHECK_VALUE(task < tasks - 1, "refuse_in_parallel: task must be below ", tasks - 1, " (got ", task,
                             ")");
          });
        }),
        py::arg("tasks"));
  m.def("start_profile", guarded<Work::kNone>([] {
          for (auto& part : moco::profile().nanoseconds) part = 0;
          moco::profile().on = true;
        }));
  m.def("stop_profile", guarded<Work::kNone>([] {
          moco::profile().on = false;
          std::map<std::string, double> seconds;
          for (size_t part = 0; part < moco::kPartNames.size(); ++part) {
            seconds[moco::kPartNames[part]] = 1e-9 * static_cast<double>(moco::profile().nanoseconds[part]);
          }
          return seconds;
        }));

  py::class_<PackedBatch>(m, "PackedBatch")
      .def(py::init(guarded([](const at::Tensor& attention_mask) { return PackedBatch(attention_mask); })),
           py::arg("attention_mask"))
      .def_property_readonly("rows", &PackedBatch::rows)
      .def_property_readonly("total_tokens", &PackedBatch::total_tokens)
      .def_property_readonly("max_seqlen", &PackedBatch::max_seqlen)
      .def_property_readonly("cu_seqlens", guarded([](const PackedBatch& b) { return at::tensor(b.cu_seqlens()); }))
      .def_property_readonly("row_ids", guarded([](const PackedBatch& b) { return at::tensor(b.row_ids()); }))
      .def_property_readonly("hidden", guarded([](const PackedBatch& b) { return b.hidden(); }))
      .def("unpad", guarded([](PackedBatch& b, const at::Tensor& padded) { b.unpad(padded); }), py::arg("padded"))
      .def("pad", guarded([](const PackedBatch& b) { return b.pad(); }))
      .def("attention_mask", guarded([](const PackedBatch& b) { return b.attention_mask(); }))
      .def("pool", guarded([](const PackedBatch& b, const std::string& feature, std::optional<int64_t> tokens) {
             return b.pool(moco::feature_from_name(feature), tokens.value_or(b.max_seqlen()));
           }),
           py::arg("feature"), py::kw_only(), py::arg("tokens") = py::none())
      .def("keep_mean", guarded([](PackedBatch& b) { b.keep_mean(); }))
      .def("cls", guarded([](const PackedBatch& b) { return b.cls(); }))
      .def("compact", guarded([](PackedBatch& b, const at::Tensor& keep) { b.compact(to_vector(keep)); }),
           py::arg("keep"))
      .def("keep_rows_of", guarded([](PackedBatch& b, const PackedBatch& survivors) { b.keep_rows_of(survivors); }),
           py::arg("survivors"));

  py::class_<Results>(m, "Results")
      .def(py::init(guarded([](int64_t rows, int64_t classes, at::ScalarType dtype, at::Device device) {
             return Results(rows, classes, dtype, device);
           })),
           py::arg("rows"), py::arg("classes"), py::kw_only(), py::arg("dtype"), py::arg("device"))
      .def_property_readonly("logits", &Results::logits)
      .def_property_readonly("exit_site", &Results::exit_site)
      .def_property_readonly("exit_rule", &Results::exit_rule)
      .def("write_last", guarded([](Results& r, const PackedBatch& batch, const at::Tensor& logits) {
             r.write_last(batch.row_ids(), logits);
           }),
           py::arg("batch"), py::arg("logits"));

  py::class_<OffRamp>(m, "OffRamp")
      .def(py::init(guarded([](const std::vector<Affine>& layers, const std::string& score, double temperature) {
             return OffRamp(layers, score, temperature);
           })),
           py::arg("layers"), py::kw_only(), py::arg("score"), py::arg("temperature"))
      .def("score", guarded([](const OffRamp& ramp, const at::Tensor& x) { return ramp.score(x); }), py::arg("x"));

  py::class_<Exits>(m, "Exits")
      .def(py::init(guarded([](int64_t site, int64_t classes) { return Exits(site, classes); })), py::arg("site"),
           py::arg("classes"))
      .def("add_linear",
           guarded([](Exits& e, int64_t rule_id, const at::Tensor& logits, const std::string& feature,
                      const at::Tensor& weight, double bias,
                      double threshold) { e.add_linear(rule_id, logits, feature, weight, bias, threshold); }),
           py::arg("rule_id"), py::arg("logits"), py::kw_only(), py::arg("feature"), py::arg("weight"), py::arg("bias"),
           py::arg("threshold"))
      .def("add_off_ramp",
           guarded([](Exits& e, int64_t rule_id, const at::Tensor& logits, const std::string& feature,
                      const OffRamp& off_ramp, std::vector<float> thresholds, int64_t patience) {
             e.add_off_ramp(rule_id, logits, feature, off_ramp, std::move(thresholds), patience);
           }),
           py::arg("rule_id"), py::arg("logits"), py::kw_only(), py::arg("feature"), py::arg("off_ramp"),
           py::arg("thresholds"), py::arg("patience"))
      .def("add_callable",
           guarded([](Exits& e, int64_t rule_id, const at::Tensor& logits) { e.add_callable(rule_id, logits); }),
           py::arg("rule_id"), py::arg("logits"))
      .def("apply",
           guarded([](const Exits& e, PackedBatch& batch, Results& results, const std::vector<at::Tensor>& fires) {
             return e.apply(batch, results, fires);
           }),
           py::arg("batch"), py::arg("results"), py::arg("fires") = std::vector<at::Tensor>{});

  py::class_<moco::EmbeddingWeights>(m, "EmbeddingWeights")
      .def(py::init(guarded([](at::Tensor words, at::Tensor positions, std::optional<at::Tensor> types, Affine norm,
                               std::optional<Affine> projection, std::optional<int64_t> padding_idx) {
             return moco::EmbeddingWeights{words, positions, types, norm, projection, padding_idx};
           })),
           py::kw_only(), py::arg("words"), py::arg("positions"), py::arg("types"), py::arg("norm"),
           py::arg("projection") = py::none(), py::arg("padding_idx") = py::none());
  py::class_<LayerWeights>(m, "LayerWeights")
      .def(py::init(guarded([](const Weights& query, const Weights& key, const Weights& value,
                               const Weights& attention_output, Affine attention_norm, const Weights& intermediate,
                               const Weights& output, Affine output_norm) {
             return LayerWeights{linear(query),  linear(key),          linear(value),  linear(attention_output),
                                 attention_norm, linear(intermediate), linear(output), output_norm};
           })),
           py::kw_only(), py::arg("query"), py::arg("key"), py::arg("value"), py::arg("attention_output"),
           py::arg("attention_norm"), py::arg("intermediate"), py::arg("output"), py::arg("output_norm"));
  py::class_<moco::HeadWeights>(m, "HeadWeights")
      .def(py::init(guarded([](Affine dense, std::string activation, Affine output) {
             return moco::HeadWeights{dense, activation, output};
           })),
           py::kw_only(), py::arg("dense"), py::arg("activation"), py::arg("output"));

  py::class_<Encoder>(m, "Encoder")
      .def(py::init(guarded([](const moco::EmbeddingWeights& embeddings, const std::vector<LayerWeights>& layers,
                               const moco::HeadWeights& head, int64_t heads, const std::string& activation, double eps,
                               at::ScalarType dtype) {
             return std::make_unique<Encoder>(embeddings, layers, head, heads, activation, eps, dtype);
           })),
           py::arg("embeddings"), py::arg("layers"), py::arg("head"), py::kw_only(), py::arg("heads"),
           py::arg("activation"), py::arg("eps"), py::arg("dtype"))
      .def_property_readonly("num_layers", &Encoder::num_layers)
      .def_property_readonly("num_classes", &Encoder::num_classes)
      .def_property_readonly("dtype", &Encoder::dtype)
      .def("embed",
           guarded([](const Encoder& e, PackedBatch& batch, const at::Tensor& input_ids,
                      const std::optional<at::Tensor>& token_type_ids) { e.embed(batch, input_ids, token_type_ids); }),
           py::arg("batch"), py::arg("input_ids"), py::arg("token_type_ids"))
      .def("attention", guarded([](const Encoder& e, int64_t layer, PackedBatch& batch) { e.attention(layer, batch); }),
           py::arg("layer"), py::arg("batch"))
      .def("feed_forward",
           guarded([](const Encoder& e, int64_t layer, PackedBatch& batch) { e.feed_forward(layer, batch); }),
           py::arg("layer"), py::arg("batch"))
      .def("peek",
           guarded([](const Encoder& e, int64_t layer, const PackedBatch& batch) { return e.peek(layer, batch); }),
           py::arg("layer"), py::arg("batch"))
      .def("classify", guarded([](const Encoder& e, const PackedBatch& batch) { return e.classify(batch); }),
           py::arg("batch"));
}
