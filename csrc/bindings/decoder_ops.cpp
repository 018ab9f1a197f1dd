#include <pybind11/stl.h>

#include <optional>

#include "bindings/kernel_error.hpp"
#include "bindings/module.hpp"
#include "cuda/decoder_ops/run.hpp"
#if FESTINA_HAS_CUDA
#include "cuda/decoder_ops/decoder_ops.hpp"
#endif

namespace py = pybind11;

namespace festina::bindings {
namespace {

using Address = std::uintptr_t;
using Stream = std::optional<Address>;  // none: as host code

template <typename T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

template <typename Operation>
void run(const char* name, const Operation& operation, Stream stream) {
  decoder_ops::check(operation);
  if (!stream) {
    const py::gil_scoped_release released;
    decoder_ops::run_host(operation);
    return;
  }
#if FESTINA_HAS_CUDA
  check_kernel(name, decoder_ops::run_device(operation, at<CUstream_st>(*stream)));
#else
  throw KernelError(std::string(name) + ": built without CUDA");
#endif
}

template <typename T>
void norm(std::uint32_t rows, std::uint32_t width, float eps, Address x, Address update,
          Address gain, Address out, Stream stream) {
  run("norm",
      decoder_ops::Norm<T>{rows, width, eps, at<T>(x), at<const T>(update), at<const float>(gain),
                           at<T>(out)},
      stream);
}

template <typename T>
void gate(std::uint32_t rows, std::uint32_t width, bool gelu, Address gate_up, Address out,
          Stream stream) {
  run("gate", decoder_ops::Gate<T>{rows, width, gelu, at<const T>(gate_up), at<T>(out)}, stream);
}

struct Heads {
  std::uint32_t queries;
  std::uint32_t keys;
  std::uint32_t head_dim;
  std::uint32_t pairs;
  bool halves;
  float eps;
  std::uint64_t block_stride;
};

template <typename T>
void rotate(const Heads& heads, std::uint32_t rows, Address qkv, Address cosines, Address sines,
            Address q_gain, Address k_gain, Address slots, Address keys, Address values,
            Stream stream) {
  run("rotate",
      decoder_ops::Rotate<T>{rows, heads.queries, heads.keys, heads.head_dim, heads.pairs,
                             heads.halves, heads.eps, heads.block_stride, at<T>(qkv),
                             at<const float>(cosines), at<const float>(sines),
                             at<const float>(q_gain), at<const float>(k_gain),
                             at<const std::int32_t>(slots), at<T>(keys), at<T>(values)},
      stream);
}

}  // namespace

void register_decoder_ops(py::module_& m) {
  py::class_<Heads>(m, "DecoderHeads", "How a row of queries, keys and values divides and turns.")
      .def(py::init([](std::uint32_t queries, std::uint32_t keys, std::uint32_t head_dim,
                       std::uint32_t pairs, bool halves, float eps, std::uint64_t block_stride) {
             return Heads{queries, keys, head_dim, pairs, halves, eps, block_stride};
           }),
           py::kw_only(), py::arg("queries"), py::arg("keys"), py::arg("head_dim"),
           py::arg("pairs"), py::arg("halves"), py::arg("eps"), py::arg("block_stride"),
           "`halves` turns (i, i + pairs), else (2i, 2i + 1); `block_stride` is in elements.");
  m.def(
      "decoder_norm",
      [](bool bf16, std::uint32_t rows, std::uint32_t width, float eps, Address x, Address update,
         Address gain, Address out, Stream stream) {
        (bf16 ? norm<cuda::Bf16> : norm<float>)(rows, width, eps, x, update, gain, out, stream);
      },
      py::arg("bf16"), py::arg("rows"), py::arg("width"), py::arg("eps"), py::arg("x"),
      py::arg("update"), py::arg("gain"), py::arg("out"), py::arg("stream"),
      "out = norm(x), after x += update unless that is 0; all arrays by address. On a stream, or "
      "as host code where it is None. Raises ValueError, CudaKernelError.");
  m.def(
      "decoder_gate",
      [](bool bf16, std::uint32_t rows, std::uint32_t width, bool gelu, Address gate_up,
         Address out, Stream stream) {
        (bf16 ? gate<cuda::Bf16> : gate<float>)(rows, width, gelu, gate_up, out, stream);
      },
      py::arg("bf16"), py::arg("rows"), py::arg("width"), py::arg("gelu"), py::arg("gate_up"),
      py::arg("out"), py::arg("stream"), "out = activation(gate) · up; see decoder_norm.");
  m.def(
      "decoder_rotate",
      [](bool bf16, const Heads& heads, std::uint32_t rows, Address qkv, Address cosines,
         Address sines, Address q_gain, Address k_gain, Address slots, Address keys, Address values,
         Stream stream) {
        (bf16 ? rotate<cuda::Bf16> : rotate<float>)(heads, rows, qkv, cosines, sines, q_gain,
                                                    k_gain, slots, keys, values, stream);
      },
      py::arg("bf16"), py::arg("heads"), py::arg("rows"), py::arg("qkv"), py::arg("cosines"),
      py::arg("sines"), py::arg("q_gain"), py::arg("k_gain"), py::arg("slots"), py::arg("keys"),
      py::arg("values"), py::arg("stream"),
      "Norms (unless gains are 0) and turns queries and keys, caches keys and values; see "
      "csrc/cuda/decoder_ops/types.hpp and decoder_norm.");
}

}  // namespace festina::bindings
