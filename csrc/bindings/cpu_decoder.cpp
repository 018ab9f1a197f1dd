#include <pybind11/numpy.h>

#include <string>
#include <utility>
#include <vector>

#include "bindings/cpu_arrays.hpp"
#include "bindings/cpu_weight.hpp"
#include "bindings/module.hpp"
#include "core/cpu_kernels/decoder.hpp"

namespace py = pybind11;

namespace festina::bindings {

namespace {

/// Reads the dataclasses of festina.engine.cpu.kernel_types and keeps the buffers they name.
class Reader {
 public:
  const cpu::Weight& weight(const py::handle& from, const char* field) {
    const auto& held = from.attr(field).cast<const HeldWeight&>();
    kept_.append(held.owner);
    return held.weight;
  }

  /// Null for None.
  const float* gain(const py::handle& from, const char* field, std::size_t width) {
    const py::object value = from.attr(field);
    if (value.is_none()) return nullptr;
    kept_.append(value);
    return view<const float>(value.cast<py::array>(), field, {width}).data;
  }

  const float* required_gain(const py::handle& from, const char* field, std::size_t width) {
    const float* found = gain(from, field, width);
    cpu::require(found != nullptr, field, "an array", "this norm is not optional");
    return found;
  }

  float* pool(const py::array& array, const char* field, const std::vector<std::size_t>& shape) {
    kept_.append(array);
    return view<float>(array, field, shape).data;
  }

 private:
  py::list kept_;
};

template <class T>
T get(const py::handle& from, const char* field) {
  return from.attr(field).cast<T>();
}

cpu::DecoderShape read_shape(const py::handle& shape, std::size_t width) {
  return {width,
          get<std::size_t>(shape, "heads"),
          get<std::size_t>(shape, "kv_heads"),
          get<std::size_t>(shape, "head_dim"),
          get<float>(shape, "norm_eps"),
          get<float>(shape, "attention_scale"),
          get<float>(shape, "embedding_scale"),
          activation(get<std::string>(shape, "activation")),
          rope_style(get<std::string>(shape, "rope_style"))};
}

std::vector<std::vector<float>> read_frequencies(const py::handle& shape) {
  std::vector<std::vector<float>> all;
  for (const py::handle item : shape.attr("frequencies")) {
    const auto one = view<const float>(item.cast<py::array>(), "frequencies", {kAny});
    all.emplace_back(one.data, one.data + one.size);
  }
  return all;
}

cpu::DecoderLayer read_layer(const py::handle& layer, const cpu::DecoderShape& shape,
                             Reader& reader) {
  return {reader.weight(layer, "q"),
          reader.weight(layer, "k"),
          reader.weight(layer, "v"),
          reader.weight(layer, "o"),
          reader.weight(layer, "gate"),
          reader.weight(layer, "up"),
          reader.weight(layer, "down"),
          reader.required_gain(layer, "attn_norm", shape.width),
          reader.required_gain(layer, "ffn_norm", shape.width),
          reader.gain(layer, "q_norm", shape.head_dim),
          reader.gain(layer, "k_norm", shape.head_dim),
          reader.gain(layer, "attn_post_norm", shape.width),
          reader.gain(layer, "ffn_post_norm", shape.width),
          get<std::size_t>(layer, "window"),
          get<std::size_t>(layer, "rope")};
}

cpu::Decoder read_decoder(const std::string& isa, const py::handle& shape_object,
                          const py::handle& weights, const py::array& keys, const py::array& values,
                          Reader& reader) {
  const cpu::Weight& embedding = reader.weight(weights, "embedding");
  const cpu::DecoderShape shape = read_shape(shape_object, embedding.columns);
  const auto pool =
      view<float>(keys, "keys", {kAny, kAny, shape.kv_heads, shape.head_dim, cpu::kBlockTokens})
          .shape;
  cpu::Decoder decoder(
      cpu::find_kernels(isa.c_str()), shape, embedding, reader.weight(weights, "output"),
      reader.required_gain(weights, "output_norm", shape.width), read_frequencies(shape_object),
      reader.pool(keys, "keys", pool),
      reader.pool(values, "values",
                  {pool[0], pool[1], shape.kv_heads, cpu::kBlockTokens, shape.head_dim}),
      {pool[0], pool[1], shape.kv_heads, shape.head_dim});
  for (const py::handle layer : weights.attr("layers")) {
    decoder.add_layer(read_layer(layer, shape, reader));
  }
  decoder.check_complete();
  return decoder;
}

/// A Decoder and all Python buffers it points into. One thread at a time.
class CpuDecoder {
 public:
  CpuDecoder(const std::string& isa, const py::object& shape, const py::object& weights,
             const py::array& keys, const py::array& values)
      : decoder_(read_decoder(isa, shape, weights, keys, values, reader_)) {}

  void forward(const py::array& token_ids, const BatchArrays& batch, const py::array& logit_rows,
               const py::array& logits) {
    const auto ids = view<const std::int32_t>(token_ids, "token_ids", {batch.positions.size});
    const auto rows = view<const std::int32_t>(logit_rows, "logit_rows", {kAny});
    const auto out = view<float>(logits, "logits", {rows.size, decoder_.vocabulary()});
    const py::gil_scoped_release released;
    decoder_.forward(ids.data, batch.view_of(), batch.sequence_count(), batch.blocks.size,
                     rows.data, rows.size, out.data);
  }

 private:
  Reader reader_;
  cpu::Decoder decoder_;
};

}  // namespace

void register_cpu_decoder(py::module_& m) {
  py::class_<CpuDecoder>(m, "CpuDecoder",
                         "All layers of a Llama-class decoder in one call without the GIL. See "
                         "festina.engine.cpu.kernel_types for the contract.")
      .def(py::init<const std::string&, const py::object&, const py::object&, const py::array&,
                    const py::array&>(),
           py::arg("isa"), py::arg("shape"), py::arg("weights"), py::arg("keys"), py::arg("values"))
      .def("forward", &CpuDecoder::forward, py::arg("token_ids"), py::arg("batch"),
           py::arg("logit_rows"), py::arg("logits"));
}

}  // namespace festina::bindings
