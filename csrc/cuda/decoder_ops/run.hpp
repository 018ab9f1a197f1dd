#pragma once
#include <stdexcept>

#include "cuda/decoder_ops/bodies.hpp"

// The bodies as host code, thread after thread, and checks of sizes. For tests.

namespace festina::decoder_ops {

// Raise std::invalid_argument naming a size that no kernel has.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <typename T>
void check(const Norm<T>& norm) {
  require(norm.width > 0 && norm.width % 8 == 0, "width: expected a multiple of 8");
}

template <typename T>
void check(const Gate<T>& gate) {
  require(gate.width > 0 && gate.width % 8 == 0, "width: expected a multiple of 8");
}

template <typename T>
void check(const Rotate<T>& rotate) {
  require(rotate.head_dim > 0 && rotate.head_dim % 8 == 0, "head_dim: expected a multiple of 8");
  require(2 * rotate.pairs <= rotate.head_dim, "pairs: expected at most half of head_dim");
  require(rotate.queries + rotate.keys <= heads_max, "heads: expected at most 256");
}

template <typename T>
void run_host(const Norm<T>& norm) {
  RowSums sums{};
  for (std::uint32_t row = 0; row < norm.rows; ++row) {
    for (std::uint32_t thread = 0; thread < threads; ++thread) add_row(norm, row, thread, sums);
    for (std::uint32_t thread = 0; thread < threads; ++thread) fold_row(thread, sums);
    for (std::uint32_t thread = 0; thread < threads; ++thread) scale_row(norm, row, thread, sums);
  }
}

template <typename T>
void run_host(const Gate<T>& gate) {
  const std::size_t items = std::size_t{gate.rows} * (gate.width / 8);
  for (std::size_t item = 0; item < items; ++item) gate_eight(gate, item);
}

template <typename T>
void run_host(const Rotate<T>& rotate) {
  HeadSums sums{};
  for (std::uint32_t row = 0; row < rotate.rows; ++row) {
    for (std::uint32_t thread = 0; thread < threads && rotate.q_gain != nullptr; ++thread) {
      square_heads(rotate, row, thread, sums);
    }
    for (std::uint32_t thread = 0; thread < threads; ++thread)
      turn_heads(rotate, row, thread, sums);
  }
}

}  // namespace festina::decoder_ops
