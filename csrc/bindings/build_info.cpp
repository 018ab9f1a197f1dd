#include <pybind11/typing.h>

#include "bindings/module.hpp"

namespace py = pybind11;

namespace festina::bindings {

void register_build_info(py::module_& m) {
  m.def(
      "build_info",
      [] {
        py::typing::Dict<py::str, py::object> info;
        info["version"] = FESTINA_VERSION;
        info["compiler"] = __VERSION__;
        info["cuda"] = static_cast<bool>(FESTINA_HAS_CUDA);
        info["cuda_architectures"] = FESTINA_CUDA_ARCHITECTURES;
        info["cuda_fallback"] = static_cast<bool>(FESTINA_CUDA_FALLBACK);
        info["sanitizer"] = FESTINA_SANITIZER;
        return info;
      },
      "What this module was built with.");
}

}  // namespace festina::bindings
