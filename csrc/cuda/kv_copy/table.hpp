#pragma once
#include "cuda/kv_copy/descriptor.hpp"

// What one launch of the copy kernel moves. It travels as the kernel's only parameter, by value: no
// table in device memory has to be filled or kept, and a captured launch keeps its own copy.

namespace festina::kv_copy {

template <std::uint32_t N>
struct Table {
  static constexpr std::uint32_t capacity = N;
  std::uint64_t src;    // addresses that the device can reach: its own memory, pinned host memory,
  std::uint64_t dst;    // a peer's, or what another process has shared
  std::uint32_t count;  // runs in use
  std::uint32_t lanes;  // threads that share a run; a divisor of the launch's threads
  Descriptor runs[N];
};

// A launch carries its whole table, so short tables have a kernel of their own.
constexpr std::uint32_t short_table = 32;
constexpr std::uint32_t long_table = 1024;
static_assert(sizeof(Table<long_table>) <= 32764, "the most a kernel takes as parameters");

constexpr std::uint32_t block_threads = 256;
constexpr std::uint64_t piece_bytes = 64 * 1024;  // the most that one block copies at a stretch

// What thread `thread` of `threads` moves.
template <std::uint32_t N>
FESTINA_HOST_DEVICE inline void copy_table(const Table<N>& table, std::uint32_t thread,
                                           std::uint32_t threads) {
  const auto* src = reinterpret_cast<const std::byte*>(table.src);
  auto* dst = reinterpret_cast<std::byte*>(table.dst);
  for (std::uint32_t i = thread / table.lanes; i < table.count; i += threads / table.lanes) {
    copy_lane(src, dst, table.runs[i], thread % table.lanes, table.lanes);
  }
}

}  // namespace festina::kv_copy
