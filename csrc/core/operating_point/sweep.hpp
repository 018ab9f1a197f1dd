#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/operating_point/admission.hpp"
#include "core/operating_point/types.hpp"
#include "core/profile_table/view.hpp"

// What the admitted tasks need and cost at each clock.
namespace festina::operating_point {

// All admitted tasks at one clock, each on the fewest SMs that meet its deadline.
struct Total {
  int sms = 0;
  float dynamic_j = 0;
  float task_ms = 0;      // summed over tasks
  float span_ms = 0;      // the longest
  float dynamic_w = 0;    // while all run
  float bytes_per_s = 0;  // that they ask for together
  float slowdown = 1;     // because memory gives less
  bool feasible = true;   // all deadlines met, and the SMs suffice
};

class Sweep {
 public:
  Sweep(const ProfileView& profile, const Options& options)
      : profile_(profile), options_(options) {}

  // Totals of every clock in [first, last], where the tasks were admitted at `last`.
  void run(const std::vector<Candidate>& candidates, const State& state, int first, int last) {
    totals_.assign(static_cast<std::size_t>(profile_.clocks()), Total{});
    rungs_.resize(totals_.size() * candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if (candidates[i].rung >= 0) add(candidates, i, first, last);
    }
    for (int clock = first; clock <= last; ++clock) {
      at(clock).feasible = at(clock).feasible && at(clock).sms <= state.sms;
      if (shared_bandwidth()) contend(candidates, state, clock);
    }
  }

  const Total& total(int clock) const { return totals_[static_cast<std::size_t>(clock)]; }

  // The rung of admitted task `i` at `clock`. Where the deadlines cannot all be met it is the one
  // that the task was admitted with: these fit together.
  int rung(const std::vector<Candidate>& candidates, std::size_t i, int clock) const {
    if (!total(clock).feasible) return candidates[i].rung;
    return rungs_[static_cast<std::size_t>(clock) * candidates.size() + i];
  }

  // Makes the total of an infeasible clock that of the rungs the tasks were admitted with.
  void settle(const std::vector<Candidate>& candidates, int clock) {
    Total total;
    for (const Candidate& c : candidates) {
      if (c.rung >= 0) add(total, c, c.rung, clock, profile_.cost(c.work, c.rung, clock));
    }
    total.feasible = false;
    at(clock) = total;
    slow(at(clock), std::max(1.0F, total.bytes_per_s / options_.bandwidth_bytes_per_s));
  }

 private:
  Total& at(int clock) { return totals_[static_cast<std::size_t>(clock)]; }
  std::int32_t* rungs(int clock, std::size_t tasks) {
    return &rungs_[static_cast<std::size_t>(clock) * tasks];
  }
  bool shared_bandwidth() const {
    return options_.policy == Policy::festina && options_.bandwidth_bytes_per_s < kNever;
  }

  // From the top clock down: a step never gets faster at a lower clock, so that the fewest SMs only
  // grow and each rung and clock is read at most once.
  void add(const std::vector<Candidate>& candidates, std::size_t i, int first, int last) {
    const Candidate& c = candidates[i];
    int rung = c.rung;
    for (int clock = last; clock >= first; --clock) {
      Cost cost = profile_.cost(c.work, rung, clock);
      while (!c.late && cost.latency_ms > c.deadline_ms && rung + 1 < profile_.rungs()) {
        cost = profile_.cost(c.work, ++rung, clock);
      }
      if (!c.late && cost.latency_ms > c.deadline_ms) at(clock).feasible = false;
      rungs(clock, candidates.size())[i] = rung;
      add(at(clock), c, rung, clock, cost);
    }
  }

  void add(Total& total, const Candidate& c, int rung, int clock, const Cost& cost) const {
    total.sms += profile_.sms(rung);
    total.dynamic_j += cost.latency_ms * cost.power_w / 1000.0F;
    total.task_ms += cost.latency_ms;
    total.span_ms = std::max(total.span_ms, cost.latency_ms);
    total.dynamic_w += cost.power_w;
    if (shared_bandwidth()) {
      const auto cell = c.work.nearest + profile_.point(rung, clock);
      total.bytes_per_s += profile_.traits(cell).bytes_per_s;
    }
  }

  // Memory bandwidth is not partitioned: when co-runners ask for more than there is, all slow down
  // alike, and need more SMs for the deadlines, and ask for more. A few rounds settle it.
  void contend(const std::vector<Candidate>& candidates, const State& state, int clock) {
    constexpr int kRounds = 4;
    float slowdown = 1;
    for (int round = 0; round < kRounds && at(clock).feasible; ++round) {
      const float asked = at(clock).bytes_per_s / options_.bandwidth_bytes_per_s;
      if (asked <= slowdown) break;
      slowdown = asked;
      widen(candidates, state, clock, slowdown);
    }
    const float asked = at(clock).bytes_per_s / options_.bandwidth_bytes_per_s;
    if (asked > slowdown) at(clock).feasible = false;
    slow(at(clock), slowdown);
  }

  // Gives every task the rung that it needs when steps take `slowdown` times as long. None needs
  // fewer SMs than before, so that the search goes on where it ended.
  void widen(const std::vector<Candidate>& candidates, const State& state, int clock,
             float slowdown) {
    Total total;
    std::int32_t* rungs_here = rungs(clock, candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const Candidate& c = candidates[i];
      if (c.rung < 0) continue;
      std::int32_t& rung = rungs_here[i];
      Cost cost = profile_.cost(c.work, rung, clock);
      while (!c.late && cost.latency_ms > c.deadline_ms / slowdown) {
        if (++rung == profile_.rungs()) {
          at(clock).feasible = false;
          return;
        }
        cost = profile_.cost(c.work, rung, clock);
      }
      add(total, c, rung, clock, cost);
    }
    total.feasible = total.sms <= state.sms;
    at(clock) = total;
  }

  // The same work in more time.
  static void slow(Total& total, float slowdown) {
    total.slowdown = slowdown;
    total.span_ms *= slowdown;
    total.dynamic_w /= slowdown;
  }

  const ProfileView& profile_;
  const Options& options_;
  std::vector<Total> totals_;
  std::vector<std::int32_t> rungs_;  // [clock][task]
};

}  // namespace festina::operating_point
