#pragma once
#include <pybind11/numpy.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/cpu_kernels/batch.hpp"
#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace festina::bindings {

/// A checked array: C-contiguous, of the expected type and shape. Borrows; the caller keeps the
/// array alive.
template <class T>
struct ArrayView {
  T* data;
  std::size_t size;
  std::vector<std::size_t> shape;
};

/// Stands for any size in a shape.
inline constexpr std::size_t kAny = static_cast<std::size_t>(-1);

/// Throws KernelError naming `field` unless `array` holds Ts in the given shape (an empty one
/// accepts all); unless T is const, it must be writeable too.
template <class T>
ArrayView<T> view(const pybind11::array& array, const std::string& field,
                  const std::vector<std::size_t>& shape = {}) {
  using Value = std::remove_const_t<T>;
  const auto fail = [&](const std::string& expected) {
    throw cpu::KernelError(field, expected, "wrong array");
  };
  if (!pybind11::isinstance<pybind11::array_t<Value>>(array)) {
    fail("dtype " + std::string(pybind11::str(pybind11::dtype::of<Value>())));
  }
  if ((array.flags() & pybind11::array::c_style) == 0) fail("a C-contiguous array");
  if (!std::is_const_v<T> && !array.writeable()) fail("a writeable array");
  ArrayView<T> result{nullptr, static_cast<std::size_t>(array.size()), {}};
  std::string wanted;
  bool fits = shape.empty() || static_cast<std::size_t>(array.ndim()) == shape.size();
  for (std::size_t i = 0; i < static_cast<std::size_t>(array.ndim()); ++i) {
    result.shape.push_back(
        static_cast<std::size_t>(array.shape(static_cast<pybind11::ssize_t>(i))));
    fits = fits && (i >= shape.size() || shape[i] == kAny || shape[i] == result.shape[i]);
  }
  for (const std::size_t n : shape) wanted += (n == kAny ? "*" : std::to_string(n)) + ", ";
  if (!fits) fail("shape (" + wanted + ")");
  result.data = static_cast<T*>(const_cast<void*>(array.data()));
  return result;
}

/// The four int32 arrays of a flat batch, kept alive. `check` must follow construction before use.
struct BatchArrays {
  BatchArrays(pybind11::array position_array, pybind11::array sequence_array,
              pybind11::array block_array, pybind11::array offset_array)
      : owners{std::move(position_array), std::move(sequence_array), std::move(block_array),
               std::move(offset_array)},
        positions(view<const std::int32_t>(owners[0], "positions", {kAny})),
        sequences(view<const std::int32_t>(owners[1], "sequences", {positions.size})),
        blocks(view<const std::int32_t>(owners[2], "blocks", {kAny})),
        offsets(view<const std::int32_t>(owners[3], "block_offsets", {kAny})) {
    cpu::require(offsets.size > 0, "block_offsets", "one offset more than sequences", "empty");
  }

  [[nodiscard]] cpu::BatchView view_of() const {
    return {positions.size, positions.data, sequences.data, blocks.data, offsets.data};
  }
  [[nodiscard]] std::size_t sequence_count() const { return offsets.size - 1; }

  /// Against each other and a pool of `pool_blocks`. At every use: the caller may have changed
  /// them.
  void check(std::size_t pool_blocks) const {
    cpu::check_batch(view_of(), sequence_count(), blocks.size, pool_blocks);
  }

  std::array<pybind11::array, 4> owners;
  ArrayView<const std::int32_t> positions, sequences, blocks, offsets;
};

/// The KV pool of one layer: keys (blocks, kv_heads, head_dim, 16), values (blocks, kv_heads, 16,
/// head_dim).
struct LayerArrays {
  LayerArrays(const pybind11::array& key_array, const pybind11::array& value_array,
              std::size_t head_dim)
      : keys(view<float>(key_array, "keys", {kAny, kAny, head_dim, cpu::kBlockTokens})),
        values(view<float>(value_array, "values",
                           {keys.shape[0], keys.shape[1], cpu::kBlockTokens, head_dim})) {}

  [[nodiscard]] std::size_t blocks() const { return keys.shape[0]; }
  [[nodiscard]] std::size_t kv_heads() const { return keys.shape[1]; }
  [[nodiscard]] cpu::KvLayer layer() const { return {keys.data, values.data}; }

  ArrayView<float> keys, values;
};

}  // namespace festina::bindings
