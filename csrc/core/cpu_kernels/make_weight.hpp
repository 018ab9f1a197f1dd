#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/weight.hpp"

namespace festina::cpu {

/// Values in one block and bytes it takes; dense types have blocks of one value.
struct BlockShape {
  std::size_t values;
  std::size_t bytes;
};

/// Throws UnsupportedError for a type that has no kernel.
inline BlockShape block_shape(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return {1, 4};
    case WeightType::kF16:
    case WeightType::kBF16:
      return {1, 2};
    case WeightType::kQ4_0:
      return {32, 18};
    case WeightType::kQ4_1:
      return {32, 20};
    case WeightType::kQ5_0:
      return {32, 22};
    case WeightType::kQ5_1:
      return {32, 24};
    case WeightType::kQ8_0:
      return {32, 34};
    case WeightType::kQ4_K:
      return {256, 144};
    case WeightType::kQ5_K:
      return {256, 176};
    case WeightType::kQ6_K:
      return {256, 210};
  }
  throw UnsupportedError(
      "weight.type", "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K",
      "GGUF type " + std::to_string(static_cast<std::uint32_t>(type)) + " is not implemented");
}

/// A weight over `bytes` bytes at `data`. Throws where type, shape and size do not agree.
inline Weight make_weight(const std::uint8_t* data, std::size_t bytes, std::uint32_t type,
                          std::size_t rows, std::size_t columns) {
  const BlockShape block = block_shape(static_cast<WeightType>(type));
  require(rows > 0 && columns > 0, "weight.shape", "at least one row and one column",
          "an empty weight");
  require(columns % block.values == 0, "weight.columns", "a multiple of the type's block",
          "rows do not hold whole blocks");
  const std::size_t row_bytes = columns / block.values * block.bytes;
  require(bytes % rows == 0 && bytes / rows == row_bytes, "weight.data",
          "rows x (columns / block values) x block bytes", "the size does not fit the shape");
  return {data, static_cast<WeightType>(type), rows, columns, row_bytes};
}

}  // namespace festina::cpu
