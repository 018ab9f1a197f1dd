#pragma once
#include <pybind11/numpy.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

#include "bindings/cpu_arrays.hpp"
#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/kernels.hpp"
#include "core/cpu_kernels/make_weight.hpp"

namespace festina::bindings {

/// A weight and the Python buffer it points into.
struct HeldWeight {
  pybind11::object owner;
  cpu::Weight weight;
};

inline HeldWeight hold_weight(const pybind11::array& data, std::uint32_t type, std::size_t rows,
                              std::size_t columns) {
  const auto bytes = view<const std::uint8_t>(data, "weight.data");
  return {data, cpu::make_weight(bytes.data, bytes.size, type, rows, columns)};
}

inline cpu::RopeStyle rope_style(const std::string& name) {
  if (name == "interleaved") return cpu::RopeStyle::kInterleaved;
  if (name == "half_split") return cpu::RopeStyle::kHalfSplit;
  throw cpu::UnsupportedError("style", "interleaved or half_split", "unknown rope style " + name);
}

inline cpu::Activation activation(const std::string& name) {
  if (name == "silu") return cpu::Activation::kSilu;
  if (name == "gelu_tanh") return cpu::Activation::kGeluTanh;
  throw cpu::UnsupportedError("activation", "silu or gelu_tanh", "unknown activation " + name);
}

/// KernelError becomes festina.errors.EngineError, UnsupportedError UnsupportedModelError, with
/// field and expectation.
inline void register_kernel_errors() {
  pybind11::register_local_exception_translator([](std::exception_ptr thrown) {
    const auto raise = [](const char* type, const cpu::KernelError& error) {
      const auto cls = pybind11::module_::import("festina.errors").attr(type);
      const pybind11::object instance = cls(error.what(), pybind11::arg("field") = error.field,
                                            pybind11::arg("expected") = error.expected);
      PyErr_SetObject(cls.ptr(), instance.ptr());
    };
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const cpu::UnsupportedError& error) {
      raise("UnsupportedModelError", error);
    } catch (const cpu::KernelError& error) {
      raise("EngineError", error);
    }
  });
}

}  // namespace festina::bindings
