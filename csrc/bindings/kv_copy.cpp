#include <pybind11/numpy.h>

#include <span>

#include "bindings/module.hpp"
#include "cuda/kv_copy/merge.hpp"
#if FESTINA_HAS_CUDA
#include "cuda/kv_copy/kv_copy.hpp"
#endif

namespace py = pybind11;

namespace festina::bindings {
namespace {

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Table = py::array_t<std::uint64_t, py::array::c_style | py::array::forcecast>;

std::vector<kv_copy::Descriptor> descriptors(const Table& table) {
  if (table.ndim() != 2 || table.shape(1) != 3) {
    throw py::value_error("runs: expected uint64 of shape (n, 3)");
  }
  const auto rows = table.unchecked<2>();
  std::vector<kv_copy::Descriptor> runs;
  runs.reserve(static_cast<std::size_t>(rows.shape(0)));
  for (py::ssize_t i = 0; i < rows.shape(0); ++i) {
    runs.push_back({rows(i, 0), rows(i, 1), rows(i, 2)});
  }
  return runs;
}

void copy_host(const Bytes& src, Bytes dst, const Table& table) {
  const auto runs = descriptors(table);
  const auto* from = reinterpret_cast<const std::byte*>(src.data());
  auto* to = reinterpret_cast<std::byte*>(dst.mutable_data());
  const auto src_size = static_cast<std::size_t>(src.nbytes());
  const auto dst_size = static_cast<std::size_t>(dst.nbytes());
  const py::gil_scoped_release released;
  kv_copy::copy_host({from, src_size}, {to, dst_size}, runs);
}

#if FESTINA_HAS_CUDA
void copy_device(std::uintptr_t src, std::uintptr_t dst, std::uintptr_t runs, std::uint32_t count,
                 std::uint32_t grid_max, std::uintptr_t stream) {
  const cudaError_t status = kv_copy::copy_device(
      reinterpret_cast<const std::byte*>(src), reinterpret_cast<std::byte*>(dst),
      reinterpret_cast<const kv_copy::Descriptor*>(runs), count, grid_max,
      reinterpret_cast<cudaStream_t>(stream));
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("kv_copy: ") + cudaGetErrorName(status));
  }
}
#endif

}  // namespace

void register_kv_copy(py::module_& m) {
  m.def(
      "kv_copy_host", &copy_host, py::arg("src").noconvert(), py::arg("dst").noconvert(),
      py::arg("runs"),
      "Copy runs (n, 3) of (src_offset, dst_offset, size) in bytes between two uint8 pools that do "
      "not overlap. Raises IndexError naming a descriptor outside its pool.");
#if FESTINA_HAS_CUDA
  m.def("kv_copy_device", &copy_device, py::arg("src"), py::arg("dst"), py::arg("runs"),
        py::arg("count"), py::arg("grid_max"), py::arg("stream"),
        "The same within one GPU, asynchronous on a stream; all arguments are device addresses.");
#endif
}

}  // namespace festina::bindings
