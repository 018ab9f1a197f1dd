#pragma once
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/profile_table/cell.hpp"

// One cell that a single writer changes while any number of threads and processes read it.
//
// Each cell has kSlots slots and a head. The head is the version that readers want; version v lies
// in slot v % kSlots. The writer fills the slot after the head's, then moves the head, so that:
//   - a reader never waits: the slot it reads is complete, and it reads again only when the writer
//     has published kSlots versions meanwhile;
//   - a writer killed at any instant leaves the head on a complete slot, and its successor simply
//     overwrites the unfinished one.
// A reader writes nothing, so its mapping may be read-only. Payload words are relaxed atomics, with
// the fences of Boehm, "Can seqlocks get along with programming language memory models?"
// (HPL-2012-68); one check after the payload is enough, because the head's acquire load already
// orders the payload of its version before it.
//
// Slots of one cell lie a plane apart: while nothing is corrected only plane 0 and the heads are
// touched, so that the ring costs no cache.
namespace festina::ring {

inline constexpr std::size_t kSlots = 4;
inline constexpr std::uint64_t kUnfinished = ~std::uint64_t{0};  // no head ever has this value

using Head = std::atomic<std::uint32_t>;

struct alignas(64) Slot {
  std::array<std::atomic<std::uint64_t>, kCellWords> words;  // the last word is Cell::version
};
static_assert(sizeof(Slot) == sizeof(Cell));

// Words to fields, in registers: a copy through memory would stall on store forwarding.
static_assert(std::endian::native == std::endian::little);

constexpr std::uint32_t low(std::uint64_t word) { return static_cast<std::uint32_t>(word); }
constexpr std::uint32_t high(std::uint64_t word) { return static_cast<std::uint32_t>(word >> 32); }

inline Cell unpack(const std::array<std::uint64_t, kCellWords>& words) noexcept {
  Cell cell;
  cell.latency_ms = std::bit_cast<double>(words[0]);
  cell.power_w = std::bit_cast<double>(words[1]);
  cell.flops_per_s = std::bit_cast<double>(words[2]);
  cell.bytes_per_s = std::bit_cast<double>(words[3]);
  cell.spread = std::bit_cast<float>(low(words[4]));
  cell.latency_factor = std::bit_cast<float>(high(words[4]));
  cell.power_factor = std::bit_cast<float>(low(words[5]));
  cell.samples = high(words[5]);
  cell.source = static_cast<Source>(low(words[6]));
  cell.observations = high(words[6]);
  cell.version = words[7];
  return cell;
}

// The newest complete cell. `slot0` is its slot in plane 0; planes are `plane_cells` slots apart.
inline Cell read(const Head& head, const Slot* slot0, std::size_t plane_cells) noexcept {
  std::array<std::uint64_t, kCellWords> words;
  for (;;) {
    const std::uint32_t version = head.load(std::memory_order_acquire);
    const Slot& slot = slot0[(version % kSlots) * plane_cells];
    for (std::size_t i = 0; i + 1 < kCellWords; ++i) {
      words[i] = slot.words[i].load(std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    words.back() = slot.words.back().load(std::memory_order_relaxed);
    if (words.back() == version) return unpack(words);
  }
}

// Publishes `cell` as the next version. One writer at a time.
inline void write(Head& head, Slot* slot0, std::size_t plane_cells, const Cell& cell) noexcept {
  const std::uint32_t version = head.load(std::memory_order_relaxed) + 1;
  const auto words = std::bit_cast<std::array<std::uint64_t, kCellWords>>(cell);
  Slot& slot = slot0[(version % kSlots) * plane_cells];
  slot.words.back().store(kUnfinished, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  for (std::size_t i = 0; i + 1 < kCellWords; ++i) {
    slot.words[i].store(words[i], std::memory_order_relaxed);
  }
  slot.words.back().store(version, std::memory_order_release);
  head.store(version, std::memory_order_release);
}

}  // namespace festina::ring
