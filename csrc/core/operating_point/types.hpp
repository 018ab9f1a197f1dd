#pragma once
#include <cstdint>
#include <limits>
#include <vector>

#include "core/bad_input.hpp"

// The values that go into and out of the choice of one GPU's operating point (DESIGN 4.2, paper
// section 3.4).
namespace festina::operating_point {

inline constexpr float kNever = std::numeric_limits<float>::infinity();

enum class Policy : std::uint8_t { festina, paper };

// A runnable decode step or a waiting prefill.
struct Task {
  std::int32_t model;   // index in the profile
  std::int32_t phase;   // festina::Phase
  float work0;          // new tokens, or batch
  float work1;          // cached tokens, or context tokens per sequence
  float deadline_ms;    // from now; < 0 when it has passed
  float age_ms;         // since it could have run
  double memory_bytes;  // device memory that it needs beyond what it holds
};
static_assert(sizeof(Task) == 32, "laid out as festina.control.operating_point.TASK");

// The device at the moment of the decision.
struct State {
  int clock_mhz;  // now
  int sms;        // to be shared out
  double memory_free_bytes;
  float since_switch_ms = kNever;  // since the clock was last changed
  float power_budget_w = kNever;
};

struct Options {
  Policy policy = Policy::festina;
  float margin = 0;  // share of each deadline kept in reserve
  float beta = 1;    // weight of age in the score of prefills
  bool clocks_settable = true;
  // The `festina` form only; each can be switched off alone.
  bool one_idle_power = true;            // else every task pays the idle power
  float bandwidth_bytes_per_s = kNever;  // what co-runners share; infinite: no contention
  int knee_mhz = 0;                      // clocks below save nothing; 0: there is no knee
  float switch_cost_j = 0;               // of one change of the clock
  float dwell_ms = 0;                    // a clock is kept this long unless an objective is at risk
};

// What one call decided. Vectors have one entry per task; `rung` < 0: not admitted.
struct Plan {
  int clock = 0;        // index in the profile
  bool on_time = true;  // every admitted task meets its deadline
  float energy_j = 0;   // of the admitted tasks, idle power included
  float power_w = 0;    // while they run
  float span_ms = 0;    // until the last of them ends
  std::vector<std::int32_t> rung;
  std::vector<float> latency_ms;
};

}  // namespace festina::operating_point
