#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/profile_table/cell.hpp"
#include "core/profile_table/ring.hpp"

// How a table lies in one region of memory, private or shared: offsets only, no pointers.
//
//   Header | sms | clocks | idle power | models | heads | costs | traits | cells x 4
//
// Cells of one (model, phase) are ordered [work0][work1][rung][clock], so that a sweep over SMs and
// clocks at one amount of work reads contiguous words.
namespace festina::layout {

inline constexpr std::uint64_t kMagic = 0x31464f5250534546;  // "FESPROF1", little-endian
inline constexpr std::uint32_t kVersion = 1;                 // of this layout
inline constexpr std::size_t kLine = 64;
inline constexpr std::size_t kNameBytes = 128;

// Sizes from which every offset follows.
struct Counts {
  std::uint32_t rungs;
  std::uint32_t clocks;
  std::uint32_t models;
  std::uint32_t cells;
};

struct Header {
  std::atomic<std::uint64_t> magic;  // stored last: a region without it is unfinished
  std::uint32_t version;
  Counts counts;
  std::uint32_t sms_total;
  std::uint64_t region_bytes;
  std::uint64_t memory_bytes;
  double parked_w;
  double power_cap_w;  // +inf where the device has none
  std::array<char, kNameBytes> device;
  alignas(kLine) std::atomic<std::uint64_t> epoch;  // writers this region has had
  std::atomic<std::uint64_t> updates;               // cells published since it was made
};

// A work axis of at most kKnotsMax ascending knots, padded with +inf: of fixed size, so that the
// gap that holds an amount of work is found by counting, without a branch.
inline constexpr std::size_t kKnotsMax = 16;
struct alignas(kLine) Axis {
  std::array<float, kKnotsMax> knots;
  std::array<float, kKnotsMax> inverse_gaps;  // 1 / (next knot - knot); 0 where there is none
  std::uint32_t count;
  std::uint32_t last_gap;  // index of the last gap; 0 on an axis of one knot
  float inverse_last;      // 1 / last knot; 0 if that is 0
};

struct Grid {
  std::uint32_t first_cell;
  Axis work0;
  Axis work1;
};

// A model's name, and what placement has to know of it beside its steps.
struct Model {
  std::array<char, kNameBytes> name;
  std::uint64_t weight_bytes;
  std::uint64_t kv_bytes_per_token;
  std::uint64_t context_tokens;
  double load_ms;
  double wake_ms;
  std::array<Grid, kPhases> grids;
};

struct Offsets {
  std::size_t sms, clocks, idle_w, models, heads, costs, traits, cells, end;
};

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

constexpr Offsets offsets(const Counts& n) {
  Offsets at{};
  at.sms = aligned(sizeof(Header));
  at.clocks = at.sms + aligned(n.rungs * sizeof(std::uint32_t));
  at.idle_w = at.clocks + aligned(n.clocks * sizeof(std::uint32_t));
  at.models = at.idle_w + aligned(n.clocks * sizeof(float));
  at.heads = at.models + aligned(n.models * sizeof(Model));
  at.costs = at.heads + aligned(n.cells * sizeof(ring::Head));
  at.traits = at.costs + aligned(n.cells * sizeof(std::atomic<std::uint64_t>));
  at.cells = at.traits + aligned(n.cells * sizeof(std::atomic<std::uint64_t>));
  at.end = at.cells + ring::kSlots * n.cells * sizeof(ring::Slot);
  return at;
}

}  // namespace festina::layout
