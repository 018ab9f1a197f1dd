#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

// What a decoder does between matrix products, each as one kernel: sums and norms of rows, rotation
// and caching of queries, keys and values, gated activation. Arrays are rows of T (float or Bf16)
// without gaps; widths are multiples of 8, addresses of 16 bytes. The cache is that of
// paged_attention/types.hpp.

namespace festina::decoder_ops {

constexpr std::uint32_t threads = 256;
constexpr std::uint32_t folds = 8;        // partial sums of a row, and of a head
constexpr std::uint32_t heads_max = 256;  // query and key heads together
constexpr std::uint32_t block_tokens = 16;

// out = norm(x), or x += update and out = norm(x), each of (rows, width).
template <typename T>
struct Norm {
  std::uint32_t rows;
  std::uint32_t width;
  float eps;
  T* x;
  const T* update;    // or null
  const float* gain;  // (width,)
  T* out;
};

// out = activation(gate) · up of gate_up (rows, 2 · width): gate, then up.
template <typename T>
struct Gate {
  std::uint32_t rows;
  std::uint32_t width;
  bool gelu;  // tanh's form; else SiLU
  const T* gate_up;
  T* out;
};

// Of qkv (rows, (queries + 2 · keys) · head_dim): norms queries and keys per head where there are
// gains, turns both, leaves queries in place, and puts keys and values into the cache.
template <typename T>
struct Rotate {
  std::uint32_t rows;
  std::uint32_t queries;  // heads
  std::uint32_t keys;     // heads, and as many of values
  std::uint32_t head_dim;
  std::uint32_t pairs;  // that are turned, ≤ head_dim / 2
  bool halves;          // pairs are (i, i + pairs); else (2i, 2i + 1)
  float eps;
  std::uint64_t block_stride;  // elements
  T* qkv;
  const float* cosines;       // (rows, pairs)
  const float* sines;         // (rows, pairs)
  const float* q_gain;        // (head_dim,) or null
  const float* k_gain;        // (head_dim,) or null, as q_gain
  const std::int32_t* slots;  // (rows,): block · 16 + place in the block
  T* cached_keys;             // of the layer
  T* cached_values;           // of the layer
};

}  // namespace festina::decoder_ops
