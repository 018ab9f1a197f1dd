#pragma once
#include "core/local/step_work.hpp"
#include "core/profile_table/view.hpp"

namespace festina::clock {

// The profile of a device that serves, models by their place in it: a `Cost` of `Planner`.
struct ProfileCost {
  const ProfileView* table;  // with the corrections of steps that ran
  int rung;                  // of the SMs that steps run on
  double clock_switch_ms;

  int clocks() const { return table->clocks(); }
  double idle_w(int clock) const { return table->idle_w(clock); }
  double switch_ms() const { return clock_switch_ms; }
  local::Price step(int model, const local::StepWork& w, int clock) const {
    return local::price(*table, model, w, rung, clock);
  }
  double spread(int model, const local::StepWork& w, int clock) const {
    return step(model, w, clock).spread;
  }
};

}  // namespace festina::clock
