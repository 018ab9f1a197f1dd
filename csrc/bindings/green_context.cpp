#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/module.hpp"
#include "cuda/green_context/ladder.hpp"
#if FESTINA_HAS_CUDA
#include "cuda/green_context/sm_ids.hpp"
#endif

namespace py = pybind11;

namespace festina::bindings {
namespace {

std::vector<std::uintptr_t> streams(const cuda::Ladder& ladder, std::size_t rung,
                                    std::size_t side) {
  std::vector<std::uintptr_t> addresses;
  for (void* stream : ladder.streams(rung, side)) {
    addresses.push_back(reinterpret_cast<std::uintptr_t>(stream));
  }
  return addresses;
}

std::pair<unsigned, unsigned> granularity(const cuda::Ladder& ladder) {
  return {ladder.granularity().sms_min, ladder.granularity().sms_step};
}

}  // namespace

void register_green_context(py::module_& m) {
  py::class_<cuda::Ladder>(m, "GreenContexts",
                           "A ladder of SM partitions of one GPU. Rung 0 is the whole device, each "
                           "further one two disjoint halves. Wait for all work before letting go.")
      .def(
          py::init([](std::shared_ptr<cuda::Driver> driver, int ordinal,
                      const std::vector<unsigned>& sms, unsigned count, bool fine) {
            return std::make_unique<cuda::Ladder>(std::move(driver), ordinal, sms, count, fine);
          }),
          py::arg("driver"), py::arg("ordinal"), py::arg("sms"), py::arg("streams") = 1,
          py::arg("fine") = false, py::call_guard<py::gil_scoped_release>(),
          "Makes a rung for each of `sms`, the least SMs of its first half, with `streams` streams "
          "in each half. `fine` gives smaller steps and no large thread-block clusters. Raises "
          "CudaDriverError.")
      .def_property_readonly("sms_total", &cuda::Ladder::sms_total, "SMs of the device.")
      .def_property_readonly(
          "granularity", &granularity,
          "SMs of the smallest partition, and from one size to the next (0 where "
          "there is one size).")
      .def_property_readonly("rungs", &cuda::Ladder::rungs,
                             "SMs of each half of each rung, as the driver made them.")
      .def_property_readonly("current", &cuda::Ladder::current, "The rung that work goes to.")
      .def("streams", &streams, py::arg("rung"), py::arg("side"),
           "CUstream addresses of one half. Raises IndexError.")
      .def("switch_to", &cuda::Ladder::switch_to, py::arg("rung"),
           "Work on the streams of `rung` starts after all that was given to the rung before. "
           "Raises IndexError.");
#if FESTINA_HAS_CUDA
  m.def(
      "sm_ids",
      [](int ordinal, std::uintptr_t stream, std::uint32_t blocks) {
        const py::gil_scoped_release released;
        return cuda::sm_ids(ordinal, reinterpret_cast<void*>(stream), blocks);
      },
      py::arg("ordinal"), py::arg("stream"), py::arg("blocks"),
      "SM on which each block of a probe kernel ran on `stream`.");
#endif
}

}  // namespace festina::bindings
