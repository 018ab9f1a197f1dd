#pragma once
#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/local/types.hpp"

namespace festina::local {

// A step that could run now.
struct Step {
  Choice choice;
  double starts_by_ms;  // to keep the deadlines of those in it
  double latency_ms;
};

// Whose turn it is: the model whose last step is longest ago, so that none is held up by another
// that is never idle, as long as nobody else becomes late by it. Otherwise the earliest deadline
// goes first; all that are late already are equally late and take turns, too. There is a step.
inline Step& next_step(std::vector<Step>& steps, std::span<const Lane> lanes, double now_ms) {
  const auto last_ms = [lanes](const Step& s) {
    return lanes[static_cast<std::size_t>(s.choice.lane)].last_step_ms;
  };
  std::stable_sort(steps.begin(), steps.end(),
                   [&last_ms](const Step& a, const Step& b) { return last_ms(a) < last_ms(b); });
  for (Step& step : steps) {
    const double ends_ms = now_ms + step.latency_ms;
    const auto in_time = [&](const Step& other) {
      return &other == &step || other.starts_by_ms >= ends_ms;
    };
    if (std::all_of(steps.begin(), steps.end(), in_time)) return step;
  }
  return *std::min_element(steps.begin(), steps.end(), [now_ms](const Step& a, const Step& b) {
    return std::max(a.starts_by_ms, now_ms) < std::max(b.starts_by_ms, now_ms);
  });
}

}  // namespace festina::local
