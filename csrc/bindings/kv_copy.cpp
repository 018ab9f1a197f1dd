#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include "bindings/kv_arrays.hpp"
#include "bindings/module.hpp"
#include "cuda/kv_copy/copier.hpp"
#include "cuda/kv_copy/host.hpp"
#include "cuda/kv_copy/image.hpp"
#include "cuda/kv_copy/memory.hpp"

namespace py = pybind11;

namespace festina::bindings {
namespace {

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using kv_copy::Copier;
using kv_copy::Memory;
using Region = std::pair<std::uint64_t, std::uint64_t>;

void copy_host(const Bytes& src, Bytes dst, const RunTable& table) {
  const auto runs = descriptors(table);
  const auto* from = reinterpret_cast<const std::byte*>(src.data());
  auto* to = reinterpret_cast<std::byte*>(dst.mutable_data());
  const auto src_size = static_cast<std::size_t>(src.nbytes());
  const auto dst_size = static_cast<std::size_t>(dst.nbytes());
  const py::gil_scoped_release released;
  kv_copy::copy_host({from, src_size}, {to, dst_size}, runs);
}

std::unique_ptr<Copier> make_copier(const std::shared_ptr<cuda::Driver>& driver, int ordinal,
                                    const std::optional<py::bytes>& image) {
  const auto bytes =
      image ? std::as_bytes(std::span(static_cast<std::string_view>(*image))) : kv_copy::image();
  const py::gil_scoped_release released;
  return std::make_unique<Copier>(std::make_shared<const kv_copy::Device>(driver, ordinal), bytes);
}

std::pair<std::size_t, std::size_t> copy(const Copier& copier, Region src, Region dst,
                                         const RunTable& table, std::uintptr_t stream,
                                         std::uint32_t blocks_max, std::uint64_t engine_min) {
  const auto runs = descriptors(table);
  const py::gil_scoped_release released;
  const auto copied = copier.copy({src.first, src.second}, {dst.first, dst.second}, runs,
                                  {reinterpret_cast<void*>(stream), blocks_max, engine_min});
  return {copied.by_kernel, copied.by_engine};
}

void copy_each(const Copier& copier, Region src, Region dst, const RunTable& table,
               std::uintptr_t stream) {
  const auto runs = descriptors(table);
  const py::gil_scoped_release released;
  copier.copy_each({src.first, src.second}, {dst.first, dst.second}, runs,
                   reinterpret_cast<void*>(stream));
}

std::tuple<py::bytes, std::uint64_t, std::size_t> share(const Copier& copier,
                                                        std::uint64_t address) {
  const auto shared = copier.share(address);
  return {py::bytes(shared.handle.bytes.data(), shared.handle.bytes.size()), shared.offset,
          shared.size};
}

std::unique_ptr<Memory> open_shared(const Copier& copier, const py::bytes& sent, std::size_t size) {
  kv_copy::IpcHandle bytes{};
  const auto handle = static_cast<std::string_view>(sent);
  if (handle.size() != bytes.bytes.size()) {
    throw py::value_error("handle: expected 64 bytes");
  }
  std::copy(handle.begin(), handle.end(), bytes.bytes.begin());
  return Memory::open(copier.device(), bytes, size);
}

py::buffer_info buffer(const Memory& memory) {
  if (!memory.held()) {
    throw py::buffer_error("memory that was given back");
  }
  if (!memory.on_host()) {
    throw py::buffer_error("memory of a device has no bytes on the host");
  }
  return {reinterpret_cast<std::uint8_t*>(memory.address()),
          static_cast<py::ssize_t>(memory.size())};
}

void register_memory(py::module_& m) {
  py::class_<Memory>(m, "CudaMemory", py::buffer_protocol(),
                     "Memory that copies of a GPU reach; given back when it ends. Wait for copies "
                     "first. Pinned host memory is a buffer: numpy.asarray views it.")
      .def_buffer(&buffer)
      .def_property_readonly("address", &Memory::address, "In the address space of CUDA.")
      .def_property_readonly("size", &Memory::size, "Bytes.")
      .def_property_readonly("on_host", &Memory::on_host, "Whether it is pinned host memory.")
      .def("export_fd", &Memory::export_fd,
           "A new descriptor for another process. Raises ValueError for memory of another kind.")
      .def(
          "close", &Memory::close,
          "Gives it back now, views of it included; raises CudaDriverError where that fails. There "
          "are no views from then on: BufferError.");
}

void register_copier(py::module_& m) {
  py::class_<Copier>(m, "KvCopier",
                     "Batched copies of KV blocks that touch one GPU, asynchronous on a stream. "
                     "Regions are (address, bytes); runs are uint64 (n, 3) of (src_offset, "
                     "dst_offset, size). Raises CudaDriverError.")
      .def(py::init(&make_copier), py::arg("driver"), py::arg("ordinal"),
           py::arg("image") = py::none(),
           "`image` replaces the kernels that are built in, where they are.")
      .def("copy", &copy, py::arg("src"), py::arg("dst"), py::arg("runs"), py::arg("stream"),
           py::arg("blocks_max"), py::arg("engine_min"),
           "Merges the runs; those of at least `engine_min` bytes go by the copy engines, the rest "
           "by a kernel of at most `blocks_max` blocks. Returns how many went by (kernel, engine). "
           "Raises IndexError naming a descriptor outside its region.")
      .def("copy_each", &copy_each, py::arg("src"), py::arg("dst"), py::arg("runs"),
           py::arg("stream"), "One cuMemcpyAsync for each run: what benchmarks compare with.")
      .def(
          "wait",
          [](const Copier& copier, std::uintptr_t stream) {
            copier.wait(reinterpret_cast<void*>(stream));
          },
          py::arg("stream"), py::call_guard<py::gil_scoped_release>(),
          "Waits for all that was given to `stream`.")
      .def(
          "done",
          [](const Copier& copier, std::uintptr_t stream) {
            return copier.done(reinterpret_cast<void*>(stream));
          },
          py::arg("stream"), "Whether all that was given to `stream` is done.")
      .def("enable_peer", &Copier::enable_peer, py::arg("ordinal"),
           "Lets copies reach the memory of another GPU.")
      .def(
          "allocate",
          [](const Copier& copier, std::size_t size) {
            return Memory::allocate(copier.device(), size);
          },
          py::arg("size"), "Device memory that `share` can share.")
      .def(
          "allocate_pinned",
          [](const Copier& copier, std::size_t size) {
            return Memory::pinned(copier.device(), size);
          },
          py::arg("size"), "Pinned host memory.")
      .def(
          "pin",
          [](const Copier& copier, Bytes array) {
            return Memory::pin(copier.device(), array.mutable_data(),
                               static_cast<std::size_t>(array.nbytes()));
          },
          py::arg("array").noconvert(), py::keep_alive<0, 2>(), "Pins the memory of a uint8 array.")
      .def(
          "create",
          [](const Copier& copier, std::size_t size) {
            return Memory::create(copier.device(), size);
          },
          py::arg("size"), "Device memory that a file descriptor shares; its size is rounded up.")
      .def(
          "import_fd",
          [](const Copier& copier, int fd, std::size_t size) {
            return Memory::import(copier.device(), fd, size);
          },
          py::arg("fd"), py::arg("size"),
          "What another process made by `create`, of its size; `fd` stays the caller's.")
      .def("share", &share, py::arg("address"),
           "(handle, offset, size) by which another process opens the allocation of `address`.")
      .def("open_shared", &open_shared, py::arg("handle"), py::arg("size"),
           "The allocation of another process; once for each.");
}

}  // namespace

void register_kv_copy(py::module_& m) {
  m.def(
      "kv_copy_host", &copy_host, py::arg("src").noconvert(), py::arg("dst").noconvert(),
      py::arg("runs"),
      "Copy runs (n, 3) of (src_offset, dst_offset, size) in bytes between two uint8 pools that do "
      "not overlap. Raises IndexError naming a descriptor outside its pool.");
  register_memory(m);
  register_copier(m);
}

}  // namespace festina::bindings
