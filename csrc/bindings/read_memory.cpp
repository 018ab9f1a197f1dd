#include <pybind11/stl.h>

#include <cstdint>
#include <optional>

#include "bindings/kernel_error.hpp"
#include "bindings/module.hpp"
#include "cuda/bandwidth/body.hpp"
#if FESTINA_HAS_CUDA
#include "cuda/bandwidth/read.hpp"
#endif

namespace py = pybind11;

namespace festina::bindings {
namespace {

using Address = std::uintptr_t;

void read_memory(Address address, std::size_t size, Address folded, unsigned blocks,
                 std::optional<Address> stream) {
  constexpr std::size_t word = sizeof(bandwidth::Word);
  if (address % word != 0 || size % word != 0) {
    throw py::value_error("address, size: expected multiples of 16");
  }
  if (blocks == 0) {
    throw py::value_error("blocks: expected at least 1");
  }
  const bandwidth::Read read{reinterpret_cast<const bandwidth::Word*>(address), size / word,
                             reinterpret_cast<std::uint32_t*>(folded)};
  if (!stream) {
    bandwidth::run_host(read, std::size_t{blocks} * bandwidth::threads);
    return;
  }
#if FESTINA_HAS_CUDA
  check_kernel("read_memory",
               bandwidth::run_device(read, blocks, reinterpret_cast<cudaStream_t>(*stream)));
#else
  throw KernelError("read_memory: built without CUDA");
#endif
}

}  // namespace

void register_read_memory(py::module_& m) {
  m.def("read_memory", &read_memory, py::arg("address"), py::arg("size"), py::arg("folded"),
        py::arg("blocks"), py::arg("stream"), py::call_guard<py::gil_scoped_release>(),
        "Reads `size` bytes at `address` and folds them, as uint32, into the one at `folded` by "
        "exclusive or; writes nothing else. On a stream, or as host code where it is None. Raises "
        "ValueError, CudaKernelError.");
}

}  // namespace festina::bindings
