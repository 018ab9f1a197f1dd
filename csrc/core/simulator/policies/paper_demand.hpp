#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <deque>
#include <optional>
#include <vector>

#include "core/packing/energy_waste.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/summaries.hpp"

// What each model needs of a GPU, from the last minutes of its load (arXiv 2606.30391, section
// 3.5.2, phase one, and appendix E).
namespace festina::simulator {

// Means of one model's requests.
struct Observed {
  double per_ms;
  double input_tokens;
  double output_tokens;
  double ttft_ms;
  double tbt_ms;
};

class LoadWindow {
 public:
  explicit LoadWindow(double length_ms) : length_ms_(length_ms) {}

  void add(double now_ms, const Request& q) {
    arrivals_.push_back({now_ms, static_cast<double>(q.uncached()), static_cast<double>(q.ttft_ms),
                         static_cast<double>(q.tbt_ms)});
  }

  // None came within the window: nothing.
  std::optional<Observed> means(double now_ms, double output_tokens) {
    while (!arrivals_.empty() && arrivals_.front().at_ms <= now_ms - length_ms_) {
      arrivals_.pop_front();
    }
    if (arrivals_.empty()) return std::nullopt;
    Observed sum{0, 0, output_tokens, 0, 0};
    for (const Arrival& a : arrivals_) {
      sum.input_tokens += a.input_tokens;
      sum.ttft_ms += a.ttft_ms;
      sum.tbt_ms += a.tbt_ms;
    }
    const auto count = static_cast<double>(arrivals_.size());
    return Observed{count / std::min(length_ms_, std::max(now_ms, 1.0)), sum.input_tokens / count,
                    output_tokens, sum.ttft_ms / count, sum.tbt_ms / count};
  }

 private:
  struct Arrival {
    double at_ms, input_tokens, ttft_ms, tbt_ms;
  };
  double length_ms_;
  std::deque<Arrival> arrivals_;
};

// The operating point of one phase alone: at each clock the fewest SMs that meet the deadline, and
// of these points the one of least energy, idle power included. That is the local scheduler's own
// sweep. The least over all SM counts would be the whole GPU for every model, because idle power is
// paid for longer on fewer SMs, and no two models would ever share one.
struct PhasePoint {
  double sms;
  double clock_mhz;
  double latency_ms;
  double power_w;
};
inline PhasePoint phase_point(const Cluster& c, int model, Phase phase, double work0, double work1,
                              double deadline_ms) {
  const ProfileView& table = c.table();
  const WorkPoint w = table.locate(c.belief().profile(model), phase, static_cast<float>(work0),
                                   static_cast<float>(work1));
  const double slower = c.belief().factor(model, phase);
  PhasePoint best{};
  double least_j = kNever;
  for (int clock = 0; clock <= c.top_clock(); ++clock) {
    int rung = table.least_rung(w, clock, static_cast<float>(deadline_ms / slower));
    if (rung < 0 && clock < c.top_clock()) continue;
    if (rung < 0) rung = c.full_rung();
    const Cost cost = table.cost(w, rung, clock);
    const double power_w = static_cast<double>(cost.power_w + table.idle_w(clock));
    const double latency_ms = static_cast<double>(cost.latency_ms) * slower;
    if (latency_ms * power_w >= least_j) continue;
    least_j = latency_ms * power_w;
    best = {static_cast<double>(table.sms(rung)), static_cast<double>(table.clock_mhz(clock)),
            latency_ms, power_w};
  }
  return best;
}

// SM_l, F_l and M_l of a model, and the time for which it executes in a window of `window_ms`. The
// batch follows from Little's law. Prompts must keep up with their arrivals, too.
inline packing::Item demand_of(const Cluster& c, int model, const Observed& load,
                               double window_ms) {
  constexpr double kPrefillShare = 0.5;  // of time, at most: the rest is for decodes
  const double context = load.input_tokens + load.output_tokens / 2;
  const PhasePoint p = phase_point(c, model, Phase::prefill, load.input_tokens, 0,
                                   std::min(load.ttft_ms, kPrefillShare / load.per_ms));
  PhasePoint d{};
  double batch = 1;
  for (int round = 0; round < 3; ++round) {
    d = phase_point(c, model, Phase::decode, batch, context, load.tbt_ms);
    batch = std::max(1.0, load.per_ms * load.output_tokens * d.latency_ms);
  }
  const double decode_ms = load.output_tokens * d.latency_ms;
  const double whole_ms = p.latency_ms + decode_ms;
  const double prefill_j = p.power_w * p.latency_ms;
  const double decode_j = d.power_w * decode_ms;
  const double in_flight = load.per_ms * whole_ms;
  return {
      (p.sms * p.latency_ms + d.sms * decode_ms) / whole_ms,
      c.weight_bytes(model) + in_flight * c.kv_bytes(model, load.input_tokens + load.output_tokens),
      (p.clock_mhz * prefill_j + d.clock_mhz * decode_j) / (prefill_j + decode_j),
      window_ms * load.per_ms * (p.latency_ms + decode_ms / batch)};
}

}  // namespace festina::simulator
