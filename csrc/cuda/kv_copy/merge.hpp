#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
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

// Runs that continue the one before them in the table on both sides become one with it.
[[nodiscard]] inline std::vector<Descriptor> join(std::span<const Descriptor> runs) {
  std::vector<Descriptor> joined;
  joined.reserve(runs.size());
  for (const Descriptor& run : runs) {
    if (!joined.empty()) {
      Descriptor& last = joined.back();
      if (last.src_offset + last.size == run.src_offset &&
          last.dst_offset + last.size == run.dst_offset) {
        last.size += run.size;
        continue;
      }
    }
    joined.push_back(run);
  }
  return joined;
}

// Upwards in the source, a digit of the offset at a time: comparing the runs of a large table takes
// several times as long as a GPU takes to copy them.
inline void sort_by_source(std::vector<Descriptor>& runs) {
  constexpr unsigned digit_bits = 8;
  std::uint64_t used = 0;
  for (const Descriptor& run : runs) {
    used |= run.src_offset;
  }
  std::vector<Descriptor> sorted(runs.size());
  for (unsigned shift = 4; shift < 64 && used >> shift != 0; shift += digit_bits) {
    std::array<std::size_t, 1U << digit_bits> places{};
    for (const Descriptor& run : runs) {
      ++places[static_cast<std::uint8_t>(run.src_offset >> shift)];
    }
    std::exclusive_scan(places.begin(), places.end(), places.begin(), std::size_t{0});
    for (const Descriptor& run : runs) {
      sorted[places[static_cast<std::uint8_t>(run.src_offset >> shift)]++] = run;
    }
    runs.swap(sorted);
  }
}

// Runs that continue each other on both sides become one, wherever in the table they stand: the
// driver never merges them, and each costs it some time. The result goes up in the source.
[[nodiscard]] inline std::vector<Descriptor> merge(std::span<const Descriptor> runs) {
  const auto earlier = [](const Descriptor& a, const Descriptor& b) {
    return a.src_offset < b.src_offset;
  };
  if (std::is_sorted(runs.begin(), runs.end(), earlier)) {
    return join(runs);
  }
  std::vector<Descriptor> sorted(runs.begin(), runs.end());
  sort_by_source(sorted);
  return join(sorted);
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
