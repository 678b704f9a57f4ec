#include "bindings/guarded.h"

#include <pybind11/gil_safe_call_once.h>

#include <exception>
#include <new>

#include "core/checks.h"

namespace moco {

namespace py = pybind11;

namespace {

Failure::Kind kind_of(const Refusal& refusal) {
  switch (refusal.kind()) {
    case Refusal::Kind::kValue:
      return Failure::Kind::kValue;
    case Refusal::Kind::kType:
      return Failure::Kind::kType;
    case Refusal::Kind::kIndex:
      return Failure::Kind::kIndex;
  }
  return Failure::Kind::kRuntime;
}

PyObject* type_of(Failure::Kind kind) {
  switch (kind) {
    case Failure::Kind::kValue:
      return PyExc_ValueError;
    case Failure::Kind::kType:
      return PyExc_TypeError;
    case Failure::Kind::kIndex:
      return PyExc_IndexError;
    case Failure::Kind::kMemory:
      return PyExc_MemoryError;
    case Failure::Kind::kRuntime:
    case Failure::Kind::kIsSet:
      break;
  }
  return PyExc_RuntimeError;
}

}  // namespace

int64_t torch_threads() {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> storage;
  const py::object& get_num_threads =
      storage.call_once_and_store_result([] { return py::module_::import("torch").attr("get_num_threads"); })
          .get_stored();
  return get_num_threads().cast<int64_t>();
}

Failure current_failure() {
  using Kind = Failure::Kind;
  try {
    throw;
  } catch (const Refusal& refusal) {
    return {kind_of(refusal), refusal.what()};
  } catch (py::error_already_set& error) {
    const py::gil_scoped_acquire gil;
    error.restore();
    return {Kind::kIsSet, {}};
  } catch (const std::bad_alloc& error) {
    return {Kind::kMemory, error.what()};
  } catch (const std::exception& error) {
    return {Kind::kRuntime, error.what()};
  } catch (...) {
    return {Kind::kRuntime, "unknown C++ exception"};
  }
}

void raise(const Failure& failure) {
  if (failure.kind != Failure::Kind::kIsSet) ::PyErr_SetString(type_of(failure.kind), failure.message.c_str());
  throw py::error_already_set();
}

}  // namespace moco
