// What dictionaries hold, such as those of a model's modules, how many, and where tensors lie: to be compared later.
//
// To ask a hundred modules in Python would take a tenth of the time of a short row.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
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

// A whole number that Python has handed over, whose reference is dropped here.
uint64_t number_of(PyObject* number) {
  const auto held = py::reinterpret_steal<py::object>(number);
  if (!held) throw py::error_already_set();
  const uint64_t value = PyLong_AsUnsignedLongLongMask(number);
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

py::bytes bytes_of(const std::vector<uint64_t>& numbers) {
  return {reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(uint64_t)};
}

// How many each of these dictionaries holds.
py::bytes sizes_of(const py::list& dicts) {
  std::vector<uint64_t> sizes;
  sizes.reserve(dicts.size());
  for (const py::handle each : dicts) sizes.push_back(py::len(each));
  return bytes_of(sizes);
}

// The addresses of tensors, and of those that count it how often they were written.
py::bytes places_of(const py::list& tensors, const py::list& counting) {
  static const py::handle data_ptr = py::str("data_ptr").release(), version = py::str("_version").release();
  std::vector<uint64_t> numbers;
  numbers.reserve(tensors.size() + counting.size());
  for (const py::handle each : tensors) {
    numbers.push_back(number_of(PyObject_CallMethodNoArgs(each.ptr(), data_ptr.ptr())));
  }
  for (const py::handle each : counting) numbers.push_back(number_of(PyObject_GetAttr(each.ptr(), version.ptr())));
  return bytes_of(numbers);
}

}  // namespace

void bind_watch(py::module_& m) {
  // Not guarded: all of it is work on Python's objects, which needs the GIL.
  py::class_<HeldObjects>(m, "HeldObjects", py::custom_type_setup(collect))
      .def(py::init<const std::vector<py::dict>&>(), py::arg("dicts"))
      .def("replaced", &HeldObjects::replaced);
  m.def("sizes_of", sizes_of, py::arg("dicts"));
  m.def("places_of", places_of, py::arg("tensors"), py::arg("counting"));
}

}  // namespace moco
