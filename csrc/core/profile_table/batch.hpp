#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/profile_table/layout.hpp"
#include "core/profile_table/view.hpp"

// Estimates of many steps of one (model, phase). The same figures as ProfileView::estimate to about
// 1e-6, several times faster: the steps are located in plain loops that compile to vector code, and
// only the cells are then read step by step.
namespace festina::batch {

inline constexpr std::size_t kSteps = 256;  // of one call: their places stay in the first cache

// Columns of up to kSteps steps. Rungs and clocks are in range.
struct Steps {
  std::size_t count;
  const std::int32_t* rung;
  const std::int32_t* clock;
  const float* work0;
  const float* work1;
};

template <class T>
using PerStep = std::array<T, kSteps>;

// Where steps lie in the grid; see WorkPoint.
struct Places {
  PerStep<float> share0, share1;  // of the way to the next knot
  PerStep<float> stretch;
  PerStep<std::uint32_t> cell;  // lower corner, at the step's rung and clock
  PerStep<std::uint32_t> nearest;
};

// Positions on an axis, in knots: 1.25 is a quarter of the way from knot 1 to knot 2. Every gap
// adds the share of it that lies below the work, which needs no search.
inline void positions(const layout::Axis& axis, std::size_t count, const float* work,
                      PerStep<float>& out) noexcept {
  std::fill_n(out.begin(), count, 0.0F);
  for (std::size_t gap = 0; gap + 1 < axis.count; ++gap) {
    const float knot = axis.knots[gap];
    const float inverse = axis.inverse_gaps[gap];
    for (std::size_t i = 0; i < count; ++i) {
      float share = (work[i] - knot) * inverse;
      share = share > 0 ? share : 0.0F;  // not a number: 0
      out[i] += share < 1 ? share : 1.0F;
    }
  }
}

// Splits positions into the gap and the share of it, which stays in `position`.
inline void split(const layout::Axis& axis, std::size_t count, PerStep<float>& position,
                  PerStep<std::uint32_t>& gap) noexcept {
  const auto last = static_cast<float>(axis.last_gap);
  for (std::size_t i = 0; i < count; ++i) {
    const float below = position[i] < last ? position[i] : last;
    const auto whole = static_cast<std::int32_t>(below);
    gap[i] = static_cast<std::uint32_t>(whole);
    position[i] -= static_cast<float>(whole);
  }
}

inline void locate(const ProfileView& view, const layout::Grid& grid, const Steps& steps,
                   Places& to) noexcept {
  const std::size_t n = steps.count;
  PerStep<std::uint32_t> gap0, gap1;
  positions(grid.work0, n, steps.work0, to.share0);
  positions(grid.work1, n, steps.work1, to.share1);
  split(grid.work0, n, to.share0, gap0);
  split(grid.work1, n, to.share1, gap1);
  const std::uint32_t step1 = view.points();
  const std::uint32_t step0 = step1 * grid.work1.count;
  const auto clocks = static_cast<std::uint32_t>(view.clocks());
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t point = static_cast<std::uint32_t>(steps.rung[i]) * clocks +
                                static_cast<std::uint32_t>(steps.clock[i]);
    to.cell[i] = grid.first_cell + gap0[i] * step0 + gap1[i] * step1 + point;
    to.nearest[i] =
        to.cell[i] + (to.share0[i] > 0.5F ? step0 : 0) + (to.share1[i] > 0.5F ? step1 : 0);
    const float beyond0 = steps.work0[i] * grid.work0.inverse_last;
    const float beyond1 = steps.work1[i] * grid.work1.inverse_last;
    to.stretch[i] = (beyond0 > 1 ? beyond0 : 1.0F) * (beyond1 > 1 ? beyond1 : 1.0F);
  }
}

using Floats = float __attribute__((vector_size(16)));
using Words = std::uint64_t __attribute__((vector_size(16)));

// The costs of two cells: latency, power, latency, power. As whole words: taking them apart and
// together again would cost more than the arithmetic.
inline Floats pair(const ProfileView& view, std::uint32_t first, std::uint32_t second) noexcept {
  const auto* costs = view.costs();
  return std::bit_cast<Floats>(Words{costs[first].load(std::memory_order_relaxed),
                                     costs[second].load(std::memory_order_relaxed)});
}

// Reads the cells of located steps. Where an axis has one knot, its share is 0 and the corner above
// is the one below.
inline void mix(const ProfileView& view, const layout::Grid& grid, std::size_t count,
                const Places& at, Estimate* out) noexcept {
  const std::uint32_t step1 = grid.work1.count > 1 ? view.points() : 0;
  const std::uint32_t step0 = grid.work0.count > 1 ? view.points() * grid.work1.count : 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t low = at.cell[i];
    const std::uint32_t high = low + step0;
    const Floats below = pair(view, low, low + step1);
    const Floats along0 = below + at.share0[i] * (pair(view, high, high + step1) - below);
    const Floats next = __builtin_shufflevector(along0, along0, 2, 3, 2, 3);
    const Floats stretch = {at.stretch[i], 1, 1, 1};
    const auto cost = std::bit_cast<Words>((along0 + at.share1[i] * (next - along0)) * stretch);
    const auto traits = std::bit_cast<std::uint64_t>(view.traits(at.nearest[i]));
    out[i] = std::bit_cast<Estimate>(Words{cost[0], traits});
  }
}

// Writes one estimate per step. Safe beside one writer, like the view.
inline void estimate(const ProfileView& view, int model, Phase phase, const Steps& steps,
                     Estimate* out) noexcept {
  const layout::Grid& grid = view.grid(model, phase);
  Places places;
  locate(view, grid, steps, places);
  mix(view, grid, steps.count, places, out);
}

}  // namespace festina::batch
