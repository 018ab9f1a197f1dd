#pragma once
#include <pybind11/numpy.h>

#include <cstdint>
#include <vector>

#include "cuda/kv_copy/descriptor.hpp"

namespace festina::bindings {

using RunTable =
    pybind11::array_t<std::uint64_t, pybind11::array::c_style | pybind11::array::forcecast>;

// Rows of (src_offset, dst_offset, size). Raises ValueError for another shape.
inline std::vector<kv_copy::Descriptor> descriptors(const RunTable& table) {
  if (table.ndim() != 2 || table.shape(1) != 3) {
    throw pybind11::value_error("runs: expected uint64 of shape (n, 3)");
  }
  const auto rows = table.unchecked<2>();
  std::vector<kv_copy::Descriptor> runs;
  runs.reserve(static_cast<std::size_t>(rows.shape(0)));
  for (pybind11::ssize_t i = 0; i < rows.shape(0); ++i) {
    runs.push_back({rows(i, 0), rows(i, 1), rows(i, 2)});
  }
  return runs;
}

}  // namespace festina::bindings
