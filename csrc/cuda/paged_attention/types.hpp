#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/host_device.hpp"

// Attention of one new token each of several sequences over a paged cache (flash decoding: the
// context is split among thread blocks, and their results are joined).
//
// Cache of one layer: block b of a pool begins at b · block_stride. In it, per KV head: keys
// (head_dim / 8, 16, 8), so that neighbouring threads read neighbouring tokens; values
// (16, head_dim). Of the query heads, `group` in a row share a KV head.

namespace festina::paged_attention {

constexpr std::uint32_t block_tokens = 16;
constexpr std::uint32_t head_dim_max = 256;
constexpr std::uint32_t threads = 128;
constexpr std::uint32_t tokens_each = 4;               // that a thread scores at a time
constexpr std::uint32_t tile = threads * tokens_each;  // tokens between two rescalings
constexpr std::uint32_t folds = 8;                     // partial results of a fold
constexpr std::uint32_t heads_max = 8;                 // query heads of one thread block

struct Shape {
  std::uint32_t sequences;
  std::uint32_t kv_heads;
  std::uint32_t group;         // query heads per KV head
  std::uint32_t head_dim;      // a multiple of 8 up to head_dim_max
  std::uint32_t table_width;   // entries of a block table
  std::uint32_t window;        // keys that are seen; 0 = all
  std::uint32_t splits;        // parts of a context, ≥ 1
  float scale;                 // of products
  std::uint64_t block_stride;  // elements
  std::uint64_t q_stride;      // elements from one sequence's queries to the next's

  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t heads() const { return kv_heads * group; }
  // Query heads of one thread block: a power of two, so that there are few kinds of kernel.
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t heads_each() const {
    return group >= heads_max ? heads_max : group > 4 ? 8 : group > 2 ? 4 : group;
  }
  // Thread blocks that share a KV head.
  [[nodiscard]] FESTINA_HOST_DEVICE std::uint32_t shares() const {
    return (group + heads_each() - 1) / heads_each();
  }
  // Floats of scratch memory, at an address that 16 bytes divide.
  [[nodiscard]] std::size_t scratch() const {
    return splits < 2 ? 0 : std::size_t{sequences} * heads() * splits * (head_dim + 2);
  }
};

// T is float or Bf16. `lengths` (sequences,) are tokens in the cache, the new one included; 0 gives
// zeros. Addresses of q (rows), keys, values and out are multiples of 16 bytes.
template <typename T>
struct Arrays {
  const T* q;                   // (sequences, heads, head_dim), rows q_stride apart
  const T* keys;                // of the layer
  const T* values;              // of the layer
  const std::int32_t* tables;   // (sequences, table_width)
  const std::int32_t* lengths;  // (sequences,)
  float* scratch;               // Shape::scratch()
  T* out;                       // (sequences, heads, head_dim)
};

// What a thread block computes.
struct Place {
  std::uint32_t split;
  std::uint32_t kv_head;
  std::uint32_t share;
  std::uint32_t sequence;
};

}  // namespace festina::paged_attention
