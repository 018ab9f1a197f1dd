#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <type_traits>

#include "core/profile_table/cell.hpp"
#include "core/profile_table/layout.hpp"
#include "core/profile_table/ring.hpp"

// Reading a profile table: this model, this phase, this much work, this many SMs, this clock -> how
// long, and what does it draw?
namespace festina {

// One step, interpolated.
struct Estimate {
  float latency_ms;
  float power_w;      // dynamic: add idle_w(clock) once per device
  float spread;       // relative standard error of latency_ms, of the nearest cell
  float bytes_per_s;  // memory traffic while it runs, of the nearest cell
};

// An amount of work of one (model, phase), located on its axes once and then read at any rung and
// clock. Valid for the table that made it, as long as that lives.
struct WorkPoint {
  std::uint32_t cell;     // lower corner, at rung 0 and clock 0
  std::uint32_t step0;    // to the next knot of work0; 0 on an axis of one knot
  std::uint32_t step1;    // to the next knot of work1
  std::uint32_t nearest;  // the corner with the largest weight
  std::array<float, 4> weights;
  float stretch;  // > 1 beyond the last knots: latency grows in proportion to the work
};

// A point of the sweep. `rung` < 0: no point meets the deadline.
struct Choice {
  int rung = -1;
  int clock = -1;
  float energy_mj = std::numeric_limits<float>::infinity();
  float latency_ms = std::numeric_limits<float>::infinity();
};

// A reader of a table: a handful of pointers, copied freely, owning nothing. The table's region
// must outlive it. All members are safe beside one writer in any process, wait for nothing, write
// nothing, allocate nothing and throw nothing. Indices must be in range; only the edges (Python,
// attach) check them. An estimate mixes up to four cells, each of which is consistent in itself.
class ProfileView {
 public:
  ProfileView() = default;

  // `region` holds a validated table (table.hpp).
  explicit ProfileView(const std::byte* region) noexcept
      : header_(reinterpret_cast<const layout::Header*>(region)) {
    const auto at = layout::offsets(header_->counts);
    sms_ = reinterpret_cast<const std::uint32_t*>(region + at.sms);
    clocks_mhz_ = reinterpret_cast<const std::uint32_t*>(region + at.clocks);
    idle_w_ = reinterpret_cast<const float*>(region + at.idle_w);
    models_ = reinterpret_cast<const layout::Model*>(region + at.models);
    heads_ = reinterpret_cast<const ring::Head*>(region + at.heads);
    costs_ = reinterpret_cast<const std::atomic<std::uint64_t>*>(region + at.costs);
    traits_ = reinterpret_cast<const std::atomic<std::uint64_t>*>(region + at.traits);
    slots_ = reinterpret_cast<const ring::Slot*>(region + at.cells);
    rungs_ = header_->counts.rungs;
    clocks_ = header_->counts.clocks;
  }

  // --- axes and constants -----------------------------------------------------------------------
  int rungs() const noexcept { return static_cast<int>(rungs_); }
  int clocks() const noexcept { return static_cast<int>(clocks_); }
  int models() const noexcept { return static_cast<int>(header_->counts.models); }
  std::size_t cells() const noexcept { return header_->counts.cells; }
  std::span<const std::uint32_t> sms() const noexcept { return {sms_, rungs_}; }
  std::span<const std::uint32_t> clocks_mhz() const noexcept { return {clocks_mhz_, clocks_}; }
  int sms(int rung) const noexcept { return static_cast<int>(sms_[rung]); }
  int clock_mhz(int clock) const noexcept { return static_cast<int>(clocks_mhz_[clock]); }
  // Power of the device when it holds a context and runs nothing.
  float idle_w(int clock) const noexcept { return idle_w_[clock]; }
  std::span<const float> idle_w() const noexcept { return {idle_w_, clocks_}; }
  const layout::Header& header() const noexcept { return *header_; }
  const layout::Model& model(int index) const noexcept { return models_[index]; }
  const layout::Grid& grid(int model, Phase phase) const noexcept {
    return models_[model].grids[static_cast<std::size_t>(phase)];
  }
  std::span<const float> knots(const layout::Axis& axis) const noexcept {
    return {axis.knots.data(), axis.count};
  }
  // Cells published so far: unchanged means that nothing was corrected meanwhile.
  std::uint64_t updates() const noexcept {
    return header_->updates.load(std::memory_order_acquire);
  }

  // Index of the model of that name; -1 where the table has none.
  int find(std::string_view name) const noexcept {
    for (int i = 0; i < models(); ++i) {
      if (name == models_[i].name.data()) return i;
    }
    return -1;
  }
  // Largest rung with at most `sms` SMs; -1 where even the smallest has more.
  int rung_within(int sms) const noexcept { return last_within(sms_, rungs_, sms); }
  // Largest clock of at most `clock_mhz`; -1 where even the lowest is above.
  int clock_within(int clock_mhz) const noexcept {
    return last_within(clocks_mhz_, clocks_, clock_mhz);
  }

  // --- cells ------------------------------------------------------------------------------------
  // The whole record, consistent in itself.
  Cell cell(std::size_t index) const noexcept {
    return ring::read(heads_[index], slots_ + index, header_->counts.cells);
  }
  Cost cost(std::size_t index) const noexcept {
    return std::bit_cast<Cost>(costs_[index].load(std::memory_order_relaxed));
  }
  // The words behind `cost(index)`.
  const std::atomic<std::uint64_t>* costs() const noexcept { return costs_; }
  Traits traits(std::size_t index) const noexcept {
    return std::bit_cast<Traits>(traits_[index].load(std::memory_order_relaxed));
  }
  // Points (rung, clock) of one amount of work, and the place of one among them.
  std::uint32_t points() const noexcept { return rungs_ * clocks_; }
  std::uint32_t point(int rung, int clock) const noexcept {
    return static_cast<std::uint32_t>(rung) * clocks_ + static_cast<std::uint32_t>(clock);
  }

  // --- estimates --------------------------------------------------------------------------------
  // Prefill: work0 = new tokens, work1 = cached tokens. Decode: work0 = batch, work1 = context
  // tokens per sequence. Below the first knot the first knot counts; linear in between.
  WorkPoint locate(int model, Phase phase, float work0, float work1) const noexcept {
    const layout::Grid& g = grid(model, phase);
    const std::uint32_t gap0 = gap(g.work0, work0);
    const std::uint32_t gap1 = gap(g.work1, work1);
    // Both axes at once, without branches: what is out of bounds, or no number, is set to a bound.
    Floats at = {(work0 - g.work0.knots[gap0]) * g.work0.inverse_gaps[gap0],
                 (work1 - g.work1.knots[gap1]) * g.work1.inverse_gaps[gap1],
                 work0 * g.work0.inverse_last, work1 * g.work1.inverse_last};
    constexpr float kNoBound = std::numeric_limits<float>::infinity();
    constexpr Floats lowest = {0, 0, 1, 1};
    constexpr Floats highest = {1, 1, kNoBound, kNoBound};
    at = at > lowest ? at : lowest;
    at = at < highest ? at : highest;
    const std::uint32_t points = rungs_ * clocks_;
    WorkPoint w;
    w.step1 = g.work1.count > 1 ? points : 0;
    w.step0 = g.work0.count > 1 ? points * g.work1.count : 0;
    w.cell = g.first_cell + (gap0 * g.work1.count + gap1) * points;
    w.nearest = w.cell + (at[0] > 0.5F ? w.step0 : 0) + (at[1] > 0.5F ? w.step1 : 0);
    w.weights = {(1 - at[0]) * (1 - at[1]), (1 - at[0]) * at[1], at[0] * (1 - at[1]),
                 at[0] * at[1]};
    w.stretch = at[2] * at[3];
    return w;
  }

  // Latency and power of a located step.
  Cost cost(const WorkPoint& w, int rung, int clock) const noexcept {
    const std::uint32_t base = w.cell + point(rung, clock);
    const Cost a = cost(base), b = cost(base + w.step1);
    const Cost c = cost(base + w.step0), d = cost(base + w.step0 + w.step1);
    const auto& f = w.weights;
    return {
        (a.latency_ms * f[0] + b.latency_ms * f[1] + c.latency_ms * f[2] + d.latency_ms * f[3]) *
            w.stretch,
        a.power_w * f[0] + b.power_w * f[1] + c.power_w * f[2] + d.power_w * f[3]};
  }

  Estimate estimate(const WorkPoint& w, int rung, int clock) const noexcept {
    const Cost c = cost(w, rung, clock);
    const Traits t = traits(w.nearest + point(rung, clock));
    return {c.latency_ms, c.power_w, t.spread, t.bytes_per_s};
  }

  Estimate estimate(int model, Phase phase, int rung, int clock, float work0,
                    float work1) const noexcept {
    return estimate(locate(model, phase, work0, work1), rung, clock);
  }

  // --- inverse queries --------------------------------------------------------------------------
  // The rung of fewest SMs that meets the deadline at this clock; -1 where none does. Scans, since
  // measured latencies need not fall with every rung.
  int least_rung(const WorkPoint& w, int clock, float deadline_ms) const noexcept {
    for (int rung = 0; rung < rungs(); ++rung) {
      if (cost(w, rung, clock).latency_ms <= deadline_ms) return rung;
    }
    return -1;
  }
  int least_rung(int model, Phase phase, int clock, float work0, float work1,
                 float deadline_ms) const noexcept {
    return least_rung(locate(model, phase, work0, work1), clock, deadline_ms);
  }

  // The point of least energy, latency x (power + idle_share x idle power), that meets the
  // deadline; `idle_share` 1: the device runs this step alone, 0: its idle power is paid by others.
  // Among equals the fewest SMs, then the lowest clock.
  Choice cheapest(const WorkPoint& w, float deadline_ms, float idle_share = 1.0F) const noexcept {
    Choice best;
    for (int rung = 0; rung < rungs(); ++rung) {
      for (int clock = 0; clock < clocks(); ++clock) {
        const Cost c = cost(w, rung, clock);
        const float energy_mj = c.latency_ms * (c.power_w + idle_share * idle_w_[clock]);
        if (c.latency_ms <= deadline_ms && energy_mj < best.energy_mj) {
          best = {rung, clock, energy_mj, c.latency_ms};
        }
      }
    }
    return best;
  }
  Choice cheapest(int model, Phase phase, float work0, float work1, float deadline_ms,
                  float idle_share = 1.0F) const noexcept {
    return cheapest(locate(model, phase, work0, work1), deadline_ms, idle_share);
  }

 private:
  // Vector types of gcc and clang.
  using Floats = float __attribute__((vector_size(16)));
  using Ints = std::int32_t __attribute__((vector_size(16)));

  // The gap between knots that holds `work`; the first or last gap for work outside. Counts the
  // knots that are at most `work`, four at a time.
  static std::uint32_t gap(const layout::Axis& axis, float work) noexcept {
    const auto four = std::bit_cast<std::array<Floats, layout::kKnotsMax / 4>>(axis.knots);
    const Floats all = {work, work, work, work};
    // A lane of a comparison is -1 where it holds.
    Ints within = (all >= four[0]) + (all >= four[1]) + (all >= four[2]) + (all >= four[3]);
    within += __builtin_shufflevector(within, within, 2, 3, 0, 1);
    within += __builtin_shufflevector(within, within, 1, 0, 3, 2);
    const auto count = static_cast<std::uint32_t>(-within[0]);
    return std::min(count - (count > 0), axis.last_gap);
  }

  static int last_within(const std::uint32_t* values, std::uint32_t count, int limit) noexcept {
    int found = -1;
    for (std::uint32_t i = 0; i < count; ++i) {
      if (static_cast<std::int64_t>(values[i]) <= limit) found = static_cast<int>(i);
    }
    return found;
  }

  const layout::Header* header_ = nullptr;
  const std::uint32_t* sms_ = nullptr;
  const std::uint32_t* clocks_mhz_ = nullptr;
  const float* idle_w_ = nullptr;
  const layout::Model* models_ = nullptr;
  const ring::Head* heads_ = nullptr;
  const std::atomic<std::uint64_t>* costs_ = nullptr;
  const std::atomic<std::uint64_t>* traits_ = nullptr;
  const ring::Slot* slots_ = nullptr;
  std::uint32_t rungs_ = 0;
  std::uint32_t clocks_ = 0;
};
static_assert(std::is_trivially_copyable_v<ProfileView>);

}  // namespace festina
