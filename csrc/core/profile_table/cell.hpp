#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

// The values that a profile table holds, and how they lie in memory.
namespace festina {

// What a model step does. The values are shared with festina.types.Phase.
enum class Phase : std::uint32_t { prefill = 0, decode = 1 };
inline constexpr std::size_t kPhases = 2;

// How the figures of a cell came about.
enum class Source : std::uint32_t { measured = 0, modelled = 1, corrected = 2 };

// One record of the table: a step of one (model, phase) with one amount of work, at one SM rung and
// clock. `latency_ms` and `power_w` are the corrected figures; dividing them by their factors gives
// back what the profile file said.
struct alignas(64) Cell {
  double latency_ms;      // of one step, > 0
  double power_w;         // dynamic: above the idle power at this clock, >= 0
  double flops_per_s;     // done while the step runs
  double bytes_per_s;     // moved from and to device memory while the step runs
  float spread;           // relative standard error of latency_ms
  float latency_factor;   // corrected latency / profiled latency
  float power_factor;     // corrected power / profiled power
  std::uint32_t samples;  // measurements behind the figures
  Source source;
  std::uint32_t observations;  // measured steps fed back to this very cell (correction.hpp)
  std::uint64_t version;       // of this cell, counted by the writer (ring.hpp)
};
inline constexpr std::size_t kCellWords = sizeof(Cell) / sizeof(std::uint64_t);
static_assert(sizeof(Cell) == 64 && alignof(Cell) == 64, "a cell is one cache line");
static_assert(offsetof(Cell, version) == (kCellWords - 1) * sizeof(std::uint64_t),
              "the version is the last word");
static_assert(std::is_trivially_copyable_v<Cell>);
static_assert(std::numeric_limits<double>::is_iec559);

// The part of a cell that sweeps over SMs and clocks read: one word, so that one relaxed load gives
// a consistent pair. Derived from the record by the writer.
struct Cost {
  float latency_ms;
  float power_w;
};

// The part of a cell that the chosen point needs beside its cost; one word likewise.
struct Traits {
  float spread;
  float bytes_per_s;
};
static_assert(sizeof(Cost) == sizeof(std::uint64_t) && sizeof(Traits) == sizeof(std::uint64_t));
static_assert(std::atomic<std::uint64_t>::is_always_lock_free &&
                  std::atomic<std::uint32_t>::is_always_lock_free,
              "atomics that lie in shared memory must be free of addresses and locks");

}  // namespace festina
