#pragma once
#include <cstddef>
#include <cstdint>

#include "core/cpu_kernels/error.hpp"
#include "core/cpu_kernels/kernels.hpp"

namespace festina::cpu {

/// Sizes of a KV pool: keys are [layers][blocks][kv_heads][head_dim][16], values
/// [layers][blocks][kv_heads][16][head_dim].
struct KvShape {
  std::size_t layers;
  std::size_t blocks;
  std::size_t kv_heads;
  std::size_t head_dim;

  [[nodiscard]] std::size_t layer_floats() const {
    return blocks * kv_heads * head_dim * kBlockTokens;
  }
};

/// Throws unless every token's sequence, position and blocks lie within their arrays and the pool.
/// `sequences` and `table_blocks` are the lengths behind `block_offsets` and `blocks`.
inline void check_batch(const BatchView& batch, std::size_t sequences, std::size_t table_blocks,
                        std::size_t pool_blocks) {
  require(batch.block_offsets[0] == 0, "block_offsets", "a first offset of 0", "wrong start");
  for (std::size_t s = 0; s < sequences; ++s) {
    require(batch.block_offsets[s] <= batch.block_offsets[s + 1], "block_offsets",
            "offsets that do not fall", "an offset is below the one before it");
  }
  require(static_cast<std::size_t>(batch.block_offsets[sequences]) == table_blocks, "block_offsets",
          "a last offset equal to the length of `blocks`", "wrong end");
  for (std::size_t b = 0; b < table_blocks; ++b) {
    require(batch.blocks[b] >= 0 && static_cast<std::size_t>(batch.blocks[b]) < pool_blocks,
            "blocks", "ids of blocks of the pool", "a block id is outside the pool");
  }
  for (std::size_t t = 0; t < batch.tokens; ++t) {
    const std::int32_t s = batch.sequences[t], position = batch.positions[t];
    require(s >= 0 && static_cast<std::size_t>(s) < sequences, "sequences",
            "indices of sequences of the batch", "a token belongs to no sequence");
    const auto capacity =
        static_cast<std::size_t>(batch.block_offsets[s + 1] - batch.block_offsets[s]) *
        kBlockTokens;
    require(position >= 0 && static_cast<std::size_t>(position) < capacity, "positions",
            "positions that the sequence's block table covers",
            "a token lies outside its block table");
  }
}

/// Throws unless every id is in [0, bound).
inline void check_ids(const std::int32_t* ids, std::size_t n, std::size_t bound,
                      const char* field) {
  for (std::size_t i = 0; i < n; ++i) {
    require(ids[i] >= 0 && static_cast<std::size_t>(ids[i]) < bound, field, "ids in range",
            "an id is out of range");
  }
}

}  // namespace festina::cpu
