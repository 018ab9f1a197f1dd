#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/operating_point/types.hpp"
#include "core/profile_table/view.hpp"

// Which tasks run next: by urgency, as long as memory and SMs last (paper section 3.4, equation 4).
namespace festina::operating_point {

// A task with what the profile says about it.
struct Candidate {
  WorkPoint work;
  float deadline_ms;       // margin taken off
  std::int32_t rung = -1;  // at the top clock: of fewest SMs that meets the deadline; -1: left out
  bool late = false;       // cannot meet its deadline any more
};

// Urgency as an integer that grows with it: Score = Latency / (Slack - beta * Age). Tasks whose
// denominator is not positive are the most urgent, the most overdue first.
inline std::uint32_t urgency(float latency_ms, float slack_ms, float beta, float age_ms) {
  constexpr std::uint32_t kOverdue = 0x80000000U;
  const float left_ms = slack_ms - beta * age_ms;
  if (left_ms > 0) return std::bit_cast<std::uint32_t>(latency_ms / left_ms);
  return kOverdue | std::bit_cast<std::uint32_t>(std::max(0.0F, -left_ms));
}

class Admission {
 public:
  Admission(const ProfileView& profile, const Options& options)
      : profile_(profile), options_(options) {}

  // Fills `candidates` with one entry per task; the admitted ones have a rung.
  void admit(std::span<const Task> tasks, const State& state, int clock_now, int clock_top,
             std::vector<Candidate>& candidates) {
    locate(tasks, candidates);
    sort(tasks, candidates, profile_.rung_within(state.sms), clock_now);
    int sms_left = state.sms;
    double bytes_left = state.memory_free_bytes;
    for (const std::uint64_t key : order_) {
      const std::size_t i = ~static_cast<std::uint32_t>(key);
      if (tasks[i].memory_bytes > bytes_left) continue;
      Candidate& c = candidates[i];
      int rung = profile_.least_rung(c.work, clock_top, c.deadline_ms);
      c.late = rung < 0 || profile_.sms(rung) > state.sms;
      // A late task takes what is left: more SMs make it less late.
      if (c.late) rung = profile_.rung_within(sms_left);
      if (rung < 0 || profile_.sms(rung) > sms_left) continue;
      c.rung = rung;
      sms_left -= profile_.sms(rung);
      bytes_left -= tasks[i].memory_bytes;
    }
  }

 private:
  void locate(std::span<const Task> tasks, std::vector<Candidate>& candidates) const {
    candidates.clear();
    for (const Task& t : tasks) {
      candidates.push_back(
          {profile_.locate(t.model, static_cast<Phase>(t.phase), t.work0, t.work1),
           t.deadline_ms > 0 ? t.deadline_ms * (1 - options_.margin) : t.deadline_ms});
    }
  }

  // Most urgent first; among equals the one that was given first.
  void sort(std::span<const Task> tasks, const std::vector<Candidate>& candidates, int full,
            int clock) {
    order_.clear();
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      const Task& t = tasks[i];
      const float beta = static_cast<Phase>(t.phase) == Phase::prefill ? options_.beta : 0.0F;
      const float latency_ms = profile_.cost(candidates[i].work, full, clock).latency_ms;
      const std::uint64_t key = urgency(latency_ms, t.deadline_ms, beta, t.age_ms);
      order_.push_back(key << 32 | static_cast<std::uint32_t>(~i));
    }
    std::sort(order_.begin(), order_.end(), std::greater<>());
  }

  const ProfileView& profile_;
  const Options& options_;
  std::vector<std::uint64_t> order_;
};

}  // namespace festina::operating_point
