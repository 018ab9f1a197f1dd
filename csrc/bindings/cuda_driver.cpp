#include <memory>
#include <string>

#include "bindings/module.hpp"
#include "cuda/driver/driver.hpp"

namespace py = pybind11;

namespace festina::bindings {

void register_cuda_driver(py::module_& m) {
  py::register_exception<cuda::DriverError>(m, "CudaDriverError");
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
