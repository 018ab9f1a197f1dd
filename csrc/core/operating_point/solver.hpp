#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/operating_point/admission.hpp"
#include "core/operating_point/sweep.hpp"
#include "core/operating_point/types.hpp"
#include "core/profile_table/view.hpp"

// The operating point of one GPU: which tasks run, on how many SMs each, at which clock, so that
// the deadlines hold for the fewest joules (DESIGN 4.2, paper section 3.4).
namespace festina::operating_point {

// Keeps memory between calls, so that it is used by one thread. The profile's table must outlive
// it.
class Solver {
 public:
  Solver(ProfileView profile, const Options& options)
      : profile_(profile),
        options_(options),
        admission_(profile_, options_),
        sweep_(profile_, options_) {
    require(options.margin >= 0 && options.margin < 1, "margin", "0 or more, below 1");
    require(options.beta >= 0 && std::isfinite(options.beta), "beta", "0 or more");
    require(options.bandwidth_bytes_per_s > 0, "bandwidth_bytes_per_s", "more than 0");
    require(options.knee_mhz >= 0, "knee_mhz", "0 or more");
    require(options.switch_cost_j >= 0 && std::isfinite(options.switch_cost_j), "switch_cost_j",
            "0 or more");
    require(options.dwell_ms >= 0 && std::isfinite(options.dwell_ms), "dwell_ms", "0 or more");
  }

  Solver(const Solver&) = delete;  // its parts refer to it
  Solver& operator=(const Solver&) = delete;

  // Throws BadInput. The plan is valid until the next call.
  const Plan& solve(std::span<const Task> tasks, const State& state) {
    check(tasks, state);
    const int now = std::max(0, profile_.clock_within(state.clock_mhz));
    const bool fixed = !options_.clocks_settable;
    const int top = fixed ? now : profile_.clocks() - 1;
    admission_.admit(tasks, state, now, top, candidates_);
    sweep_.run(candidates_, state, fixed ? now : 0, top);
    const int clock = fixed ? now : choose(state, now);
    if (!total(clock).feasible) sweep_.settle(candidates_, clock);
    fill(clock);
    return plan_;
  }

 private:
  const Total& total(int clock) const { return sweep_.total(clock); }
  bool festina() const { return options_.policy == Policy::festina; }

  // --- which clock ------------------------------------------------------------------------------
  int choose(const State& state, int now) {
    const int top = profile_.clocks() - 1;
    const int first = festina() ? knee() : 0;
    span_ms_ = longest(state, first);
    int best = -1;
    for (int clock = first; clock <= top; ++clock) {
      if (!allowed(state, clock)) continue;
      if (best < 0 || energy_j(clock) < energy_j(best)) best = clock;
    }
    const bool late = std::any_of(candidates_.begin(), candidates_.end(),
                                  [](const Candidate& c) { return c.rung >= 0 && c.late; });
    if (best < 0 || late) return fastest(state);
    return festina() && stays(state, now, best) ? now : best;
  }

  // Below the end of the minimum-voltage region a lower clock costs time and saves no power.
  int knee() const {
    for (int clock = 0; clock < profile_.clocks(); ++clock) {
      if (profile_.clock_mhz(clock) >= options_.knee_mhz) return clock;
    }
    return profile_.clocks() - 1;
  }

  bool allowed(const State& state, int clock) const {
    return total(clock).feasible && within_budget(state, clock);
  }
  bool within_budget(const State& state, int clock) const {
    return !festina() || power_w(clock) <= state.power_budget_w;
  }
  float power_w(int clock) const { return profile_.idle_w(clock) + total(clock).dynamic_w; }

  // All clocks are charged idle power over the same time, that of the slowest allowed one: a device
  // that is done early idles on at its clock.
  float longest(const State& state, int first) const {
    float span_ms = 0;
    for (int clock = first; clock < profile_.clocks(); ++clock) {
      if (allowed(state, clock)) span_ms = std::max(span_ms, total(clock).span_ms);
    }
    return span_ms > 0 ? span_ms : 1.0F;
  }

  float energy_j(int clock) const {
    const Total& sum = total(clock);
    const bool once = festina() && options_.one_idle_power;
    const float idle_ms = once ? span_ms_ : sum.task_ms;
    return sum.dynamic_j + profile_.idle_w(clock) * idle_ms / 1000.0F;
  }

  // Something is late whatever the clock: the highest clock that the power budget allows, or the
  // one that exceeds it least.
  int fastest(const State& state) const {
    for (int clock = profile_.clocks() - 1; clock >= 0; --clock) {
      if (within_budget(state, clock)) return clock;
    }
    int least = 0;
    for (int clock = 1; clock < profile_.clocks(); ++clock) {
      if (power_w(clock) < power_w(least)) least = clock;
    }
    return least;
  }

  // A switch must pay for itself over the dwell, unless an objective or the budget is at risk.
  bool stays(const State& state, int now, int best) const {
    if (best == now || !allowed(state, now)) return false;
    if (state.since_switch_ms < options_.dwell_ms) return true;
    const float saving_w = (energy_j(now) - energy_j(best)) * 1000.0F / span_ms_;
    return saving_w * options_.dwell_ms / 1000.0F < options_.switch_cost_j;
  }

  // --- the answer -------------------------------------------------------------------------------
  void fill(int clock) {
    const Total& sum = total(clock);
    plan_.clock = clock;
    plan_.on_time = sum.feasible;
    plan_.span_ms = sum.span_ms;
    plan_.power_w = power_w(clock);
    const bool once = festina() && options_.one_idle_power;
    plan_.energy_j =
        sum.dynamic_j + profile_.idle_w(clock) * (once ? sum.span_ms : sum.task_ms) / 1000.0F;
    plan_.rung.assign(candidates_.size(), -1);
    plan_.latency_ms.assign(candidates_.size(), kNever);
    for (std::size_t i = 0; i < candidates_.size(); ++i) {
      const Candidate& c = candidates_[i];
      if (c.rung < 0) continue;
      plan_.on_time = plan_.on_time && !c.late;
      plan_.rung[i] = sweep_.rung(candidates_, i, clock);
      plan_.latency_ms[i] = profile_.cost(c.work, plan_.rung[i], clock).latency_ms * sum.slowdown;
    }
  }

  // --- the edge ---------------------------------------------------------------------------------
  static void require(bool good, const char* field, const char* expected) {
    if (!good) throw BadInput(field, expected);
  }

  void check(std::span<const Task> tasks, const State& state) const {
    require(state.clock_mhz >= 0, "clock_mhz", "0 or more");
    require(profile_.rung_within(state.sms) >= 0, "sms", "at least the smallest rung");
    require(state.memory_free_bytes >= 0 && std::isfinite(state.memory_free_bytes),
            "memory_free_bytes", "0 or more");
    require(state.since_switch_ms >= 0, "since_switch_ms", "0 or more");
    require(state.power_budget_w > 0, "power_budget_w", "more than 0");
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (const char* field = wrong_field(tasks[i])) {
        throw BadInput("tasks[" + std::to_string(i) + "]." + field, expected_of(field));
      }
    }
  }

  const char* wrong_field(const Task& t) const {
    if (t.model < 0 || t.model >= profile_.models()) return "model";
    if (t.phase < 0 || t.phase >= static_cast<int>(kPhases)) return "phase";
    if (!(t.work0 > 0) || !std::isfinite(t.work0)) return "work0";
    if (!(t.work1 >= 0) || !std::isfinite(t.work1)) return "work1";
    if (std::isnan(t.deadline_ms)) return "deadline_ms";
    if (!(t.age_ms >= 0) || !std::isfinite(t.age_ms)) return "age_ms";
    if (!(t.memory_bytes >= 0) || !std::isfinite(t.memory_bytes)) return "memory_bytes";
    return nullptr;
  }
  std::string expected_of(const std::string& field) const {
    if (field == "model") return "0 to " + std::to_string(profile_.models() - 1);
    if (field == "phase") return "0 or 1";
    if (field == "work0") return "more than 0";
    return field == "deadline_ms" ? "a number" : "0 or more";
  }

  ProfileView profile_;
  Options options_;
  std::vector<Candidate> candidates_;
  Plan plan_;
  Admission admission_;
  Sweep sweep_;
  float span_ms_ = 1;
};

}  // namespace festina::operating_point
