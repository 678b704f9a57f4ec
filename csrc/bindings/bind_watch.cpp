// Python's class HeldObjects: what dictionaries hold, such as those of a model's modules.
//
// To ask a hundred modules in Python would take a tenth of the time of a short row.
#include <pybind11/stl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "bindings/bindings.h"

namespace moco {

namespace py = pybind11;

namespace {

class HeldObjects {
 public:
  explicit HeldObjects(const std::vector<py::dict>& dicts) : dicts_(dicts.begin(), dicts.end()) {}

  // For Python's garbage collector: a dictionary may hold what holds this.
  int visit(visitproc visit, void* arg) const {
    for (const Values& each : dicts_) {
      Py_VISIT(each.dict.ptr());
      for (const py::object& held : each.held) Py_VISIT(held.ptr());
    }
    return 0;
  }
  void clear() { const std::vector<Values> gone = std::exchange(dicts_, {}); }

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

int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return py::detail::is_holder_constructed(self) ? py::cast<HeldObjects&>(py::handle(self)).visit(visit, arg) : 0;
}

int clear(PyObject* self) {
  py::cast<HeldObjects&>(py::handle(self)).clear();
  return 0;
}

void collect(PyHeapTypeObject* type) {
  type->ht_type.tp_flags |= Py_TPFLAGS_HAVE_GC;
  type->ht_type.tp_traverse = traverse;
  type->ht_type.tp_clear = clear;
}

}  // namespace

void bind_watch(py::module_& m) {
  // Not guarded: all of it is work on Python's objects, which needs the GIL.
  py::class_<HeldObjects>(m, "HeldObjects", py::custom_type_setup(collect))
      .def(py::init<const std::vector<py::dict>&>(), py::arg("dicts"))
      .def("replaced", &HeldObjects::replaced);
}

}  // namespace moco
