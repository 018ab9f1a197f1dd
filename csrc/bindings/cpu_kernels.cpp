#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <chrono>
#include <string>
#include <vector>

#include "bindings/cpu_arrays.hpp"
#include "bindings/cpu_weight.hpp"
#include "bindings/module.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace py = pybind11;

namespace festina::bindings {

namespace {

using cpu::require;
using Int = std::int32_t;

/// The kernels of one instruction set, with the scratch memory they need. One thread at a time.
class CpuKernels {
 public:
  explicit CpuKernels(const std::string& isa) : kernels_(cpu::find_kernels(isa.c_str())) {}

  [[nodiscard]] std::string isa() const { return kernels_.name; }

  void matmul(const py::array& x, const HeldWeight& w, const py::array& out, bool accumulate) {
    const auto in = view<const float>(x, "x", {kAny, w.weight.columns});
    const auto to = view<float>(out, "out", {in.shape[0], w.weight.rows});
    float* scratch = reserve(cpu::matmul_scratch(in.shape[0], w.weight.columns));
    const py::gil_scoped_release released;
    kernels_.matmul(in.data, in.shape[0], w.weight, to.data, accumulate, scratch);
  }

  void embed(const HeldWeight& w, const py::array& rows, float scale, const py::array& out) const {
    const auto ids = view<const Int>(rows, "rows", {kAny});
    const auto to = view<float>(out, "out", {ids.size, w.weight.columns});
    cpu::check_ids(ids.data, ids.size, w.weight.rows, "rows");
    const py::gil_scoped_release released;
    kernels_.embed(w.weight, ids.data, ids.size, scale, to.data);
  }

  void rms_norm(const py::array& x, const py::array& gain, float eps, const py::array& out) const {
    const auto in = view<const float>(x, "x", {kAny, kAny});
    const auto by = view<const float>(gain, "gain", {in.shape[1]});
    const auto to = view<float>(out, "out", in.shape);
    const py::gil_scoped_release released;
    kernels_.rms_norm(in.data, in.shape[0], in.shape[1], by.data, eps, to.data);
  }

  void rope(const py::array& x, const py::array& cosines, const py::array& sines,
            const std::string& style) const {
    const auto in = view<float>(x, "x", {kAny, kAny, kAny});
    const auto cos = view<const float>(cosines, "cosines", {in.shape[0], kAny});
    const auto sin = view<const float>(sines, "sines", cos.shape);
    const auto how = rope_style(style);
    require(cos.shape[1] * 2 <= in.shape[2], "cosines", "at most head_dim / 2 columns",
            "too many pairs");
    const py::gil_scoped_release released;
    kernels_.rope(in.data, in.shape[0], in.shape[1], in.shape[2], cos.shape[1], cos.data, sin.data,
                  how);
  }

  void gate(const py::array& gate, const py::array& up, const std::string& kind) const {
    const auto to = view<float>(gate, "gate");
    const auto by = view<const float>(up, "up", to.shape);
    const auto how = activation(kind);
    const py::gil_scoped_release released;
    kernels_.gate(to.data, by.data, to.size, how);
  }

  void add(const py::array& x, const py::array& y) const {
    const auto to = view<float>(x, "x");
    const auto from = view<const float>(y, "y", to.shape);
    const py::gil_scoped_release released;
    kernels_.add(to.data, from.data, to.size);
  }

  void store_kv(const py::array& k, const py::array& v, const BatchArrays& batch,
                const py::array& keys, const py::array& values) const {
    const auto from_k = view<const float>(k, "k", {kAny, kAny, kAny});
    const auto from_v = view<const float>(v, "v", from_k.shape);
    const LayerArrays cache(keys, values, from_k.shape[2]);
    require(from_k.shape[0] == batch.positions.size, "k", "one row per token", "wrong length");
    require(from_k.shape[1] == cache.kv_heads(), "k", "the pool's KV heads", "wrong heads");
    batch.check(cache.blocks());
    const py::gil_scoped_release released;
    kernels_.store_kv(from_k.data, from_v.data, batch.view_of(), from_k.shape[1], from_k.shape[2],
                      cache.layer());
  }

  void attention(const py::array& q, const BatchArrays& batch, const py::array& keys,
                 const py::array& values, float scale, std::size_t window, const py::array& out) {
    const auto from = view<const float>(q, "q", {kAny, kAny, kAny});
    const auto to = view<float>(out, "out", from.shape);
    const LayerArrays cache(keys, values, from.shape[2]);
    require(from.shape[0] == batch.positions.size, "q", "one row per token", "wrong length");
    require(cache.kv_heads() > 0 && from.shape[1] % cache.kv_heads() == 0, "q",
            "a multiple of the KV heads", "wrong heads");
    batch.check(cache.blocks());
    const cpu::AttentionShape shape{from.shape[1], cache.kv_heads(), from.shape[2], window, scale};
    float* scratch = reserve(cpu::attention_scratch(shape));
    const py::gil_scoped_release released;
    kernels_.attention(from.data, batch.view_of(), cache.layer(), shape, to.data, scratch);
  }

  void argmax(const py::array& x, const py::array& out) const {
    const auto in = view<const float>(x, "x", {kAny, kAny});
    const auto to = view<Int>(out, "out", {in.shape[0]});
    require(in.shape[1] > 0, "x", "at least one column", "nothing to choose from");
    const py::gil_scoped_release released;
    kernels_.argmax(in.data, in.shape[0], in.shape[1], to.data);
  }

  [[nodiscard]] double peak_gflops() const {
    constexpr std::size_t kRounds = 400'000;
    float sink = 0;
    const py::gil_scoped_release released;
    const auto start = std::chrono::steady_clock::now();
    kernels_.probe(kRounds, &sink);
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    return static_cast<double>(kRounds * kernels_.probe_flops) / taken.count();
  }

 private:
  float* reserve(std::size_t floats) {
    if (scratch_.size() < floats) scratch_.resize(floats);
    return scratch_.data();
  }

  const cpu::Kernels& kernels_;
  std::vector<float> scratch_;
};

std::vector<std::string> isas() {
  std::vector<std::string> names;
  const cpu::KernelList all = cpu::available_kernels();
  for (std::size_t i = 0; i < all.size; ++i) names.emplace_back(all.begin[i]->name);
  return names;
}

void register_weight(py::module_& m) {
  py::class_<HeldWeight>(m, "CpuWeight",
                         "A weight matrix as stored in a GGUF file: uint8 (rows · row bytes,) or "
                         "any shape of that size; kept alive, not copied.")
      .def(py::init(&hold_weight), py::arg("data"), py::arg("quantisation"), py::arg("rows"),
           py::arg("columns"))
      .def_readonly("data", &HeldWeight::owner)
      .def_property_readonly("quantisation",
                             [](const HeldWeight& w) { return static_cast<int>(w.weight.type); })
      .def_property_readonly("rows", [](const HeldWeight& w) { return w.weight.rows; })
      .def_property_readonly("columns", [](const HeldWeight& w) { return w.weight.columns; });
}

void register_batch(py::module_& m) {
  py::class_<BatchArrays> cls(m, "CpuBatch",
                              "Where the tokens of a flat batch belong: int32 positions (t,), "
                              "sequences (t,) an index per token, blocks (b,) the block tables of "
                              "all sequences one after the other, block_offsets (s+1,) where each "
                              "begins. Kept alive, not copied.");
  cls.def(py::init<py::array, py::array, py::array, py::array>(), py::arg("positions"),
          py::arg("sequences"), py::arg("blocks"), py::arg("block_offsets"));
  cls.def("check", &BatchArrays::check, py::arg("pool_blocks"),
          "Raises EngineError unless all tokens and blocks lie within the arrays and a pool of so "
          "many blocks.");
  const char* names[] = {"positions", "sequences", "blocks", "block_offsets"};
  for (std::size_t i = 0; i < 4; ++i) {
    cls.def_property_readonly(names[i], [i](const BatchArrays& batch) { return batch.owners[i]; });
  }
}

}  // namespace

void register_cpu_kernels(py::module_& m) {
  register_kernel_errors();
  register_weight(m);
  register_batch(m);
  m.def("cpu_isas", &isas, "Instruction sets this machine has kernels for, best first.");
  py::class_<CpuKernels>(m, "CpuKernels",
                         "Kernels of one instruction set; \"\" is the best. Arrays are "
                         "C-contiguous float32 or int32. One thread at a time; the GIL is "
                         "released. See festina.engine.cpu.kernel_types for the contract.")
      .def(py::init<const std::string&>(), py::arg("isa") = "")
      .def_property_readonly("isa", &CpuKernels::isa)
      .def("matmul", &CpuKernels::matmul, py::arg("x"), py::arg("weight"), py::arg("out"),
           py::arg("accumulate") = false)
      .def("embed", &CpuKernels::embed, py::arg("weight"), py::arg("rows"), py::arg("scale"),
           py::arg("out"))
      .def("rms_norm", &CpuKernels::rms_norm, py::arg("x"), py::arg("gain"), py::arg("eps"),
           py::arg("out"))
      .def("rope", &CpuKernels::rope, py::arg("x"), py::arg("cosines"), py::arg("sines"),
           py::arg("style"))
      .def("gate", &CpuKernels::gate, py::arg("gate"), py::arg("up"), py::arg("activation"))
      .def("add", &CpuKernels::add, py::arg("x"), py::arg("y"))
      .def("store_kv", &CpuKernels::store_kv, py::arg("k"), py::arg("v"), py::arg("batch"),
           py::arg("keys"), py::arg("values"))
      .def("attention", &CpuKernels::attention, py::arg("q"), py::arg("batch"), py::arg("keys"),
           py::arg("values"), py::arg("scale"), py::arg("window"), py::arg("out"))
      .def("peak_gflops", &CpuKernels::peak_gflops,
           "Measures for some milliseconds what multiplying and adding can reach here.")
      .def("argmax", &CpuKernels::argmax, py::arg("x"), py::arg("out"));
}

}  // namespace festina::bindings
