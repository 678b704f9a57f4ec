// OffRamp and Exits for Python.
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "batch/packed_batch.h"
#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "bindings/tensor_caster.h"
#include "exits/exits.h"
#include "exits/off_ramp.h"

namespace moco {

namespace py = pybind11;

void bind_exits(py::module_& m) {
  py::class_<OffRamp>(m, "OffRamp")
      .def(py::init(guarded(
               [](const std::vector<Affine>& layers, const std::string& score, double temperature,
                  std::vector<double> levels) { return OffRamp(layers, score, temperature, std::move(levels)); })),
           py::arg("layers"), py::kw_only(), py::arg("score"), py::arg("temperature"),
           py::arg("levels") = std::vector<double>{})
      .def("logits", guarded([](const OffRamp& ramp, const Tensor& x) { return ramp.logits(x); }), py::arg("x"))
      .def("score", guarded([](const OffRamp& ramp, const Tensor& x) { return ramp.answer(x).scores; }), py::arg("x"))
      .def("answer", guarded([](const OffRamp& ramp, const Tensor& x) {
             const Answers answers = ramp.answer(x);
             return std::make_pair(answers.scores, answers.logits);
           }),
           py::arg("x"));

  py::class_<BagOfTokens>(m, "BagOfTokens")
      .def(py::init(guarded([](const Tensor& table, const Tensor& bias, double temperature, const std::string& score,
                               std::vector<double> levels) {
             return BagOfTokens(table, bias, score, temperature, std::move(levels));
           })),
           py::arg("table"), py::arg("bias"), py::kw_only(), py::arg("temperature"), py::arg("score") = "max_prob",
           py::arg("levels") = std::vector<double>{})
      .def("score", guarded([](const BagOfTokens& bag, const PackedBatch& batch) { return bag.answer(batch).scores; }),
           py::arg("batch"))
      .def("answer", guarded([](const BagOfTokens& bag, const PackedBatch& batch) {
             const Answers answers = bag.answer(batch);
             return std::make_pair(answers.scores, answers.logits);
           }),
           py::arg("batch"));
  m.def("ngram_buckets",
        guarded([](const PackedBatch& batch, int64_t buckets) { return Tensor::of(ngram_buckets(batch, buckets)); }),
        py::arg("batch"), py::arg("buckets"));

  py::class_<Exits>(m, "Exits")
      .def(py::init(guarded(
               [](int64_t site, int64_t classes, bool count_streaks) { return Exits(site, classes, count_streaks); })),
           py::arg("site"), py::arg("classes"), py::kw_only(), py::arg("count_streaks") = true)
      .def("add_linear",
           guarded([](Exits& e, int64_t rule_id, const Tensor& logits, const std::string& feature, const Tensor& weight,
                      double bias,
                      double threshold) { e.add_linear(rule_id, logits, feature, weight, bias, threshold); }),
           py::arg("rule_id"), py::arg("logits"), py::kw_only(), py::arg("feature"), py::arg("weight"), py::arg("bias"),
           py::arg("threshold"))
      .def("add_off_ramp",
           guarded([](Exits& e, int64_t rule_id, const std::string& feature, const OffRamp& off_ramp,
                      std::vector<float> thresholds, int64_t patience, std::vector<float> log_odds) {
             e.add_off_ramp(rule_id, feature, off_ramp, std::move(thresholds), patience, std::move(log_odds));
           }),
           py::arg("rule_id"), py::kw_only(), py::arg("feature"), py::arg("off_ramp"), py::arg("thresholds"),
           py::arg("patience"), py::arg("log_odds") = std::vector<float>{})
      .def("add_bag",
           guarded([](Exits& e, int64_t rule_id, const BagOfTokens& bag, std::vector<float> thresholds,
                      std::vector<float> log_odds) {
             e.add_bag(rule_id, bag, std::move(thresholds), std::move(log_odds));
           }),
           py::arg("rule_id"), py::kw_only(), py::arg("bag"), py::arg("thresholds"),
           py::arg("log_odds") = std::vector<float>{})
      .def("add_callable",
           guarded([](Exits& e, int64_t rule_id, const Tensor& logits) { e.add_callable(rule_id, logits); }),
           py::arg("rule_id"), py::arg("logits"))
      .def("apply",
           guarded([](const Exits& e, PackedBatch& batch, BatchResults& results, const std::vector<Tensor>& fires,
                      const std::vector<PooledFeature>& features) {
             return e.apply(batch, results, results.streaks, fires, features);
           }),
           py::arg("batch"), py::arg("results"), py::arg("fires") = std::vector<Tensor>{}, py::kw_only(),
           py::arg("features") = std::vector<PooledFeature>{});
}

}  // namespace moco
