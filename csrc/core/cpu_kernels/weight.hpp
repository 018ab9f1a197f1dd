#pragma once
#include <cstddef>
#include <cstdint>

namespace festina::cpu {

/// How the values of a weight row are stored. Values are those of GGUF (`ggml_type`).
enum class WeightType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

/// A matrix of `rows` × `columns` values, row after row as in the GGUF file. Owns nothing; `data`
/// needs no alignment (it may point into a memory-mapped file). Made by `make_weight`.
struct Weight {
  const std::uint8_t* data;
  WeightType type;
  std::size_t rows;
  std::size_t columns;
  std::size_t row_bytes;
};

}  // namespace festina::cpu
