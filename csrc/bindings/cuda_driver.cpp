#include <exception>
#include <memory>
#include <string>

#include "bindings/module.hpp"
#include "cuda/driver/driver.hpp"

namespace py = pybind11;

namespace festina::bindings {
namespace {

const char* fault_name(cuda::DriverFault fault) {
  switch (fault) {
    case cuda::DriverFault::absent:
      return "absent";
    case cuda::DriverFault::too_old:
      return "too_old";
    case cuda::DriverFault::symbol_absent:
      return "symbol_absent";
    case cuda::DriverFault::call_failed:
      return "call_failed";
    case cuda::DriverFault::no_resources:
      return "no_resources";
    case cuda::DriverFault::capturing:
      return "capturing";
    case cuda::DriverFault::device_lost:
      return "device_lost";
  }
  return "call_failed";
}

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const cuda::DriverError& e) {
    const py::object type = py::module_::import("festina._core").attr("CudaDriverError");
    const py::object value = type(e.what());
    value.attr("fault") = fault_name(e.fault());
    PyErr_SetObject(type.ptr(), value.ptr());
  }
}

}  // namespace

void register_cuda_driver(py::module_& m) {
  const py::exception<cuda::DriverError> error(m, "CudaDriverError");
  error.attr("fault") = "";
  error.doc() =
      "What the CUDA driver refused. `fault` is absent, too_old, symbol_absent, call_failed, "
      "no_resources, capturing or device_lost (the context is unusable from then on).";
  py::register_exception_translator(&translate);
  py::class_<cuda::Driver, std::shared_ptr<cuda::Driver>>(m, "CudaDriver",
                                                          "The CUDA driver, loaded at run time.")
      .def(py::init([](const std::string& library) {
             return std::make_shared<cuda::Driver>(cuda::Driver::open(library));
           }),
           py::arg("library") = "libcuda.so.1",
           "Loads and initialises it; raises CudaDriverError when it is absent, old or failing.")
      .def_property_readonly("version", &cuda::Driver::version, "1000 major + 10 minor.")
      .def("device_count", &cuda::Driver::device_count, "CUDA devices that this process sees.")
      .def("device_uuid", &cuda::Driver::device_uuid, py::arg("ordinal"),
           "Identity of a device, as NVML writes it.")
      .def("sm_count", &cuda::Driver::sm_count, py::arg("ordinal"), "SMs of a device.")
      .def(
          "has_symbol",
          [](const cuda::Driver& driver, const std::string& name, int cuda_version) {
            try {
              return driver.symbol(name.c_str(), cuda_version) != nullptr;
            } catch (const cuda::DriverError&) {
              return false;
            }
          },
          py::arg("name"), py::arg("cuda_version"),
          "Whether it has the entry point `name` with the ABI of `cuda_version`.");
}

}  // namespace festina::bindings
