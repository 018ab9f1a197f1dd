#include "bindings/kernel_error.hpp"

#include "bindings/module.hpp"

namespace py = pybind11;

namespace festina::bindings {

void register_kernel_error(py::module_& m) {
  py::register_exception<KernelError>(m, "CudaKernelError", PyExc_RuntimeError);
}

}  // namespace festina::bindings
