// Python's class HeldObjects: what dictionaries hold, such as those of a model's modules.
//
// To ask a hundred modules in Python would take a tenth of the time of a short row.
#include <pybind11/stl.h>

#include <algorithm>
#include <vector>

#include "bindings/bindings.h"

namespace moco {

namespace py = pybind11;

namespace {

class HeldObjects {
 public:
  explicit HeldObjects(const std::vector<py::dict>& dicts) : dicts_(dicts.begin(), dicts.end()) {}

  bool replaced() const {
    return std::any_of(dicts_.begin(), dicts_.end(), [](const Values& each) { return each.replaced(); });
  }

 private:
  struct Values {
    py::dict dict;
    std::vector<py::object> held;

    explicit Values(const py::dict& from) : dict(from) {
      for (const auto& [name, value] : from) held.push_back(py::reinterpret_borrow<py::object>(value));
    }

    bool replaced() const {
      if (PyDict_Size(dict.ptr()) != static_cast<Py_ssize_t>(held.size())) return true;
      Py_ssize_t place = 0;
      PyObject* value = nullptr;
      return std::any_of(held.begin(), held.end(), [&](const py::object& expected) {
        return PyDict_Next(dict.ptr(), &place, nullptr, &value) == 0 || value != expected.ptr();
      });
    }
  };

  std::vector<Values> dicts_;
};

}  // namespace

void bind_watch(py::module_& m) {
  // Not guarded: all of it is work on Python's objects, which needs the GIL.
  py::class_<HeldObjects>(m, "HeldObjects")
      .def(py::init<const std::vector<py::dict>&>(), py::arg("dicts"))
      .def("replaced", &HeldObjects::replaced);
}

}  // namespace moco
