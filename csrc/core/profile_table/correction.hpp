#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/profile_table/cell.hpp"

// How a measured step changes the cells it was predicted from (DESIGN section 3, online
// correction).
namespace festina::correction {

inline constexpr double kFactorMax = 4.0;      // figures stay within profile / 4 and profile x 4
inline constexpr double kStepMax = 2.0;        // one measurement counts as at most 2x off
inline constexpr double kGainMin = 1.0 / 16;   // of the exponential average, once settled
inline constexpr double kNeighbourGain = 0.5;  // for cells never measured themselves
inline constexpr double kSpreadMax = 1.0;

// log(measured / predicted), bounded, so that one hiccup does not spoil a cell.
inline double surprise(double measured, double predicted) noexcept {
  return std::clamp(std::log(measured / predicted), -std::log(kStepMax), std::log(kStepMax));
}

// The first measurements count most: 1/2, 1/3, ... down to kGainMin.
inline double gain(const Cell& cell) noexcept {
  return std::max(kGainMin, 1.0 / (static_cast<double>(cell.observations) + 2.0));
}

inline float moved(float factor, double change) noexcept {
  return static_cast<float>(std::clamp(factor * std::exp(change), 1.0 / kFactorMax, kFactorMax));
}

// Moves the figures of `cell` by `share` (0-1) of one exponential-average step.
inline void apply(Cell& cell, double latency_surprise, double power_surprise,
                  double share) noexcept {
  const double step = gain(cell) * share;
  const double base_latency_ms = cell.latency_ms / cell.latency_factor;
  const double base_power_w = cell.power_w / cell.power_factor;
  const float factor = moved(cell.latency_factor, step * latency_surprise);
  const double faster = cell.latency_factor / factor;
  cell.latency_factor = factor;
  cell.power_factor = moved(cell.power_factor, step * power_surprise);
  cell.latency_ms = base_latency_ms * cell.latency_factor;
  cell.power_w = base_power_w * cell.power_factor;
  cell.flops_per_s *= faster;  // the same work in the corrected time
  cell.bytes_per_s *= faster;
  const double variance =
      (1 - step) * cell.spread * cell.spread + step * latency_surprise * latency_surprise;
  cell.spread = static_cast<float>(std::min(kSpreadMax, std::sqrt(variance)));
  cell.source = Source::corrected;
}

}  // namespace festina::correction
