#include <string>

#include "bindings/kernel_error.hpp"
#include "bindings/module.hpp"
#include "cuda/numbers.hpp"
#include "cuda/paged_attention/run.hpp"
#if FESTINA_HAS_CUDA
#include "cuda/paged_attention/paged_attention.hpp"
#endif

namespace py = pybind11;

namespace festina::bindings {
namespace {

using paged_attention::Shape;

struct Addresses {
  std::uintptr_t q;
  std::uintptr_t keys;
  std::uintptr_t values;
  std::uintptr_t tables;
  std::uintptr_t lengths;
  std::uintptr_t scratch;
  std::uintptr_t out;
};

template <typename T>
paged_attention::Arrays<T> arrays(const Addresses& at) {
  return {reinterpret_cast<const T*>(at.q),
          reinterpret_cast<const T*>(at.keys),
          reinterpret_cast<const T*>(at.values),
          reinterpret_cast<const std::int32_t*>(at.tables),
          reinterpret_cast<const std::int32_t*>(at.lengths),
          reinterpret_cast<float*>(at.scratch),
          reinterpret_cast<T*>(at.out)};
}

void run_host(const Shape& shape, const Addresses& at, bool bf16) {
  const py::gil_scoped_release released;
  bf16 ? paged_attention::run_host(shape, arrays<cuda::Bf16>(at))
       : paged_attention::run_host(shape, arrays<float>(at));
}

#if FESTINA_HAS_CUDA
void run_device(const Shape& shape, const Addresses& at, bool bf16, std::uintptr_t stream) {
  const auto on = reinterpret_cast<cudaStream_t>(stream);
  check_kernel("paged_attention",
               bf16 ? paged_attention::run_device(shape, arrays<cuda::Bf16>(at), on)
                    : paged_attention::run_device(shape, arrays<float>(at), on));
}
#endif

}  // namespace

void register_paged_attention(py::module_& m) {
  py::class_<Shape>(m, "PagedAttentionShape",
                    "Sizes of a paged attention of one new token each of several sequences.")
      .def(py::init([](std::uint32_t sequences, std::uint32_t kv_heads, std::uint32_t group,
                       std::uint32_t head_dim, std::uint32_t table_width, std::uint32_t window,
                       std::uint32_t splits, float scale, std::uint64_t block_stride,
                       std::uint64_t q_stride) {
             const Shape shape{sequences, kv_heads, group, head_dim,     table_width,
                               window,    splits,   scale, block_stride, q_stride};
             paged_attention::check(shape);
             return shape;
           }),
           py::kw_only(), py::arg("sequences"), py::arg("kv_heads"), py::arg("group"),
           py::arg("head_dim"), py::arg("table_width"), py::arg("window"), py::arg("splits"),
           py::arg("scale"), py::arg("block_stride"), py::arg("q_stride"),
           "`group` query heads share a KV head; a `window` of 0 sees all keys; strides are in "
           "elements. Raises ValueError naming a size that no kernel has.")
      .def_property_readonly("scratch", &Shape::scratch, "Floats of scratch memory that it needs.");
  py::class_<Addresses>(m, "PagedAttentionArrays",
                        "Addresses of its arrays: of all layers' one pool, offset to the layer.")
      .def(py::init([](std::uintptr_t q, std::uintptr_t keys, std::uintptr_t values,
                       std::uintptr_t tables, std::uintptr_t lengths, std::uintptr_t scratch,
                       std::uintptr_t out) {
             return Addresses{q, keys, values, tables, lengths, scratch, out};
           }),
           py::kw_only(), py::arg("q"), py::arg("keys"), py::arg("values"), py::arg("tables"),
           py::arg("lengths"), py::arg("scratch"), py::arg("out"),
           "Layouts are those of csrc/cuda/paged_attention/types.hpp.");
  m.def("paged_attention_host", &run_host, py::arg("shape"), py::arg("arrays"), py::arg("bf16"),
        "The kernels' bodies as host code, on host memory; float32, or `bf16`.");
#if FESTINA_HAS_CUDA
  m.def("paged_attention_device", &run_device, py::arg("shape"), py::arg("arrays"), py::arg("bf16"),
        py::arg("stream"),
        "The same on device memory, asynchronous on a stream. Raises CudaKernelError.");
#endif
}

}  // namespace festina::bindings
