// The module moco_rt._C: converts and calls, nothing else.
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "bindings/bindings.h"
#include "bindings/guarded.h"
#include "bindings/tensor_caster.h"
#include "core/checks.h"
#include "core/cores.h"
#include "core/isa.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "core/torch_brgemm.h"

namespace py = pybind11;
using moco::guarded;
using moco::Work;

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled part of moco_rt.";
  m.def("cpu_isa", guarded<Work::kNone>([] { return std::string(moco::kernels().isa); }));
  m.def("parallel_threads", guarded(&moco::parallel_threads));
  m.def("quota_cores", guarded<Work::kNone>([](const std::string& cgroups, const std::string& root) {
          return moco::quota_cores(cgroups, root);
        }),
        py::arg("cgroups"), py::arg("root"));
  m.def("has_brgemm", guarded<Work::kNone>([] { return moco::find_torch_brgemm() != nullptr; }));
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
          for (auto& section : moco::profile().nanoseconds) section = 0;
          moco::profile().on = true;
        }));
  m.def("stop_profile", guarded<Work::kNone>([] {
          moco::profile().on = false;
          std::map<std::string, double> seconds;
          for (size_t section = 0; section < moco::kProfileSectionNames.size(); ++section) {
            seconds[moco::kProfileSectionNames[section]] =
                1e-9 * static_cast<double>(moco::profile().nanoseconds[section]);
          }
          return seconds;
        }));
  moco::bind_batch(m);
  moco::bind_exits(m);
  moco::bind_linear(m);
  moco::bind_transformer(m);
  moco::bind_watch(m);
}
