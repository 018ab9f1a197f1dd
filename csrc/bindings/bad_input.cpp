#include "core/bad_input.hpp"

#include <exception>

#include "bindings/module.hpp"

// The error of out-of-range arguments, whichever part of the core throws it.
namespace py = pybind11;

namespace festina {
namespace {

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const BadInput& e) {
    const py::object type = py::module_::import("festina.errors").attr("BadRequestError");
    const py::object value =
        type(e.what(), py::arg("field") = e.field(), py::arg("expected") = e.expected());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

}  // namespace
}  // namespace festina

namespace festina::bindings {

void register_bad_input(py::module_& /*m*/) { py::register_exception_translator(&translate); }

}  // namespace festina::bindings
