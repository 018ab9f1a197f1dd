#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/kv_copy/descriptor.hpp"

// What every path does to a descriptor table first: check it, and make as few runs of it as there
// can be. Destinations must not overlap one another, nor the sources.

namespace festina::kv_copy {

// Throws std::out_of_range naming the bad descriptor.
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

// Runs that continue each other on both sides become one, wherever in the table they stand: the
// driver never merges them, and each costs it some time. The result goes up in the source.
[[nodiscard]] inline std::vector<Descriptor> merge(std::span<const Descriptor> runs) {
  const auto earlier = [](const Descriptor& a, const Descriptor& b) {
    return a.src_offset != b.src_offset ? a.src_offset < b.src_offset : a.dst_offset < b.dst_offset;
  };
  std::vector<Descriptor> sorted(runs.begin(), runs.end());
  if (!std::is_sorted(sorted.begin(), sorted.end(), earlier)) {
    std::sort(sorted.begin(), sorted.end(), earlier);
  }
  std::vector<Descriptor> merged;
  merged.reserve(sorted.size());
  for (const Descriptor& run : sorted) {
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

// The same runs, none longer than `size_max`, for paths that share work out by the run.
[[nodiscard]] inline std::vector<Descriptor> split(std::span<const Descriptor> runs,
                                                   std::uint64_t size_max) {
  std::vector<Descriptor> pieces;
  pieces.reserve(runs.size());
  for (const Descriptor& run : runs) {
    for (std::uint64_t done = 0; done < run.size; done += size_max) {
      pieces.push_back(
          {run.src_offset + done, run.dst_offset + done, std::min(size_max, run.size - done)});
    }
  }
  return pieces;
}

}  // namespace festina::kv_copy
