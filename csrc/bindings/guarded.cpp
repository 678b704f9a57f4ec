#include "bindings/guarded.h"

#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>

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

// Throws error_already_set where torch cannot be asked, which says why.
py::object torch_error(const char* module, const char* name) { return py::module_::import(module).attr(name); }

py::object type_of(Failure::Kind kind) {
  const auto builtin = [](PyObject* type) { return py::reinterpret_borrow<py::object>(type); };
  switch (kind) {
    case Failure::Kind::kValue:
      return builtin(PyExc_ValueError);
    case Failure::Kind::kType:
      return builtin(PyExc_TypeError);
    case Failure::Kind::kIndex:
      return builtin(PyExc_IndexError);
    case Failure::Kind::kNotImplemented:
      return builtin(PyExc_NotImplementedError);
    case Failure::Kind::kBuffer:
      return builtin(PyExc_BufferError);
    case Failure::Kind::kSyntax:
      return builtin(PyExc_SyntaxError);
    case Failure::Kind::kMemory:
      return builtin(PyExc_MemoryError);
    case Failure::Kind::kLinAlg:
      return torch_error("torch.linalg", "LinAlgError");
    case Failure::Kind::kOutOfMemory:
      return torch_error("torch", "OutOfMemoryError");
    case Failure::Kind::kAccelerator:
      return torch_error("torch", "AcceleratorError");
    case Failure::Kind::kRuntime:
    case Failure::Kind::kIsSet:
      break;
  }
  return builtin(PyExc_RuntimeError);
}

Failure without_backtrace(Failure::Kind kind, const c10::Error& error) {
  return {kind, error.what_without_backtrace()};
}

}  // namespace

Failure current_failure() {
  using Kind = Failure::Kind;
  try {
    throw;
  } catch (const Refusal& refusal) {
    return {kind_of(refusal), refusal.what()};
  } catch (const c10::IndexError& error) {
    return without_backtrace(Kind::kIndex, error);
  } catch (const c10::ValueError& error) {
    return without_backtrace(Kind::kValue, error);
  } catch (const c10::TypeError& error) {
    return without_backtrace(Kind::kType, error);
  } catch (const c10::NotImplementedError& error) {
    return without_backtrace(Kind::kNotImplemented, error);
  } catch (const c10::BufferError& error) {
    return without_backtrace(Kind::kBuffer, error);
  } catch (const c10::SyntaxError& error) {
    return without_backtrace(Kind::kSyntax, error);
  } catch (const c10::LinAlgError& error) {
    return without_backtrace(Kind::kLinAlg, error);
  } catch (const c10::OutOfMemoryError& error) {
    return without_backtrace(Kind::kOutOfMemory, error);
  } catch (const c10::AcceleratorError& error) {
    return without_backtrace(Kind::kAccelerator, error);
  } catch (const c10::Error& error) {
    return without_backtrace(Kind::kRuntime, error);
  } catch (python_error& error) {  // torch's, where a tensor is a subclass with operations in Python
    error.restore();
    return {Kind::kIsSet, {}};
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
  if (failure.kind != Failure::Kind::kIsSet) {
    ::PyErr_SetString(type_of(failure.kind).ptr(), failure.message.c_str());
  }
  throw py::error_already_set();
}

}  // namespace moco
