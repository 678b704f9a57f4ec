// The parts of the module moco_rt._C.
#pragma once

#include <pybind11/pybind11.h>

#include "batch/results.h"
#include "exits/streaks.h"

namespace moco {

// Python's class Results: a batch's results, and the streaks that belong to the same rows.
struct BatchResults : Results {
  using Results::Results;
  Streaks streaks;
};

void bind_batch(pybind11::module_& m);
void bind_exits(pybind11::module_& m);
void bind_transformer(pybind11::module_& m);

}  // namespace moco
