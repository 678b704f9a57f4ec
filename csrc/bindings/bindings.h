// The parts of the module moco_rt._C.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <tuple>
#include <variant>

#include "batch/results.h"
#include "bindings/tensor_caster.h"
#include "exits/streaks.h"
#include "linear/weights.h"

namespace moco {

// Python's class Results: a batch's results, and the streaks that belong to the same rows.
struct BatchResults : Results {
  using Results::Results;
  Streaks streaks;
};

// A linear layer's weight and bias; of int8 scale and smooth too.
using Weights = std::variant<Affine, std::tuple<Tensor, Tensor, Tensor, Tensor>>;
LinearWeights linear_weights(const Weights& weights);

void bind_batch(pybind11::module_& m);
void bind_exits(pybind11::module_& m);
void bind_linear(pybind11::module_& m);
void bind_transformer(pybind11::module_& m);
void bind_watch(pybind11::module_& m);

}  // namespace moco
