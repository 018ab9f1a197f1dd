#pragma once
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/kv_copy/descriptor.hpp"

// Host side of the batched KV copy: checks and merges a descriptor table, and copies between pools
// in host memory. Pools must not overlap. Throws std::out_of_range naming the bad descriptor.

namespace festina::kv_copy {

inline void check(std::span<const Descriptor> runs, std::uint64_t src_size,
                  std::uint64_t dst_size) {
  const auto fits = [](std::uint64_t offset, std::uint64_t size, std::uint64_t pool) {
    return offset % sizeof(Word) == 0 && size <= pool && offset <= pool - size;
  };
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Descriptor& run = runs[i];
    if (run.size == 0 || run.size % sizeof(Word) != 0 ||
        !fits(run.src_offset, run.size, src_size) || !fits(run.dst_offset, run.size, dst_size)) {
      throw std::out_of_range("descriptor " + std::to_string(i) +
                              ": outside its pool or not a multiple of 16 bytes");
    }
  }
}

// Neighbours that continue each other on both sides become one run: the driver never merges them.
[[nodiscard]] inline std::vector<Descriptor> merge(std::span<const Descriptor> runs) {
  std::vector<Descriptor> merged;
  merged.reserve(runs.size());
  for (const Descriptor& run : runs) {
    if (!merged.empty()) {
      Descriptor& last = merged.back();
      if (last.src_offset + last.size == run.src_offset &&
          last.dst_offset + last.size == run.dst_offset) {
        last.size += run.size;
        continue;
      }
    }
    merged.push_back(run);
  }
  return merged;
}

inline void copy_host(std::span<const std::byte> src, std::span<std::byte> dst,
                      std::span<const Descriptor> runs) {
  check(runs, src.size(), dst.size());
  for (const Descriptor& run : merge(runs)) {
    std::memcpy(dst.data() + run.dst_offset, src.data() + run.src_offset, run.size);
  }
}

}  // namespace festina::kv_copy
