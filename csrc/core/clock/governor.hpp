#pragma once
#include "core/clock/planner.hpp"
#include "core/clock/types.hpp"

namespace festina::clock {

// When the clock of one GPU follows its plan: up at once when an objective is at risk, down only
// after a dwell and when the next decodes stay in time.
class Governor {
 public:
  // A prompt came: the plan is to be made anew.
  void arrived() noexcept { checked_ms_ = -kNever; }

  // Whether it is time to look, at most every few milliseconds; the caller then decides.
  bool due(double now_ms) noexcept {
    if (now_ms - checked_ms_ < kCheckMs) return false;
    checked_ms_ = now_ms;
    return true;
  }

  // The clock to ask for; `target` was asked for last. `Cost` as `Planner` wants it.
  template <class Cost>
  int decide(Planner& planner, const Cost& cost, const GpuLoad& load, int clock_now, int target,
             double now_ms) {
    const int best = planner.plan(cost, load, clock_now, now_ms).clock;
    if (best == target) return target;
    if (best < target) {
      const Options& o = planner.options();
      if (o.hysteresis && now_ms - changed_ms_ < o.dwell_ms) return target;
      if (!planner.steps_fit(cost, load, best, now_ms)) return target;
    }
    changed_ms_ = now_ms;
    return best;
  }

 private:
  static constexpr double kCheckMs = 100;

  double checked_ms_ = -kNever;
  double changed_ms_ = -kNever;
};

}  // namespace festina::clock
