#pragma once
#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/clock/types.hpp"
#include "core/packing/assignment.hpp"
#include "core/packing/replacement.hpp"
#include "core/profile_table/view.hpp"

// Which models share a GPU so that others can be parked (arXiv 2606.30391, section 3.5.2 and
// appendices E to G): what each one needs of a GPU, and where it goes.
namespace festina::consolidation {

// Means of one model's requests.
struct Observed {
  double per_ms;
  double input_tokens;
  double output_tokens;
  double ttft_ms;
  double tbt_ms;
};

// A model on one kind of GPU. The factors say how much slower its steps are than profiled.
struct PaperModel {
  ProfileView table;
  int profile;
  int full_rung;
  int top_clock;
  double prefill_factor;
  double decode_factor;
  double weight_bytes;
  double kv_bytes_per_token;
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
inline PhasePoint phase_point(const PaperModel& m, Phase phase, double work0, double work1,
                              double deadline_ms) {
  const ProfileView& table = m.table;
  const WorkPoint w =
      table.locate(m.profile, phase, static_cast<float>(work0), static_cast<float>(work1));
  const double slower = phase == Phase::prefill ? m.prefill_factor : m.decode_factor;
  PhasePoint best{};
  double least_j = clock::kNever;
  for (int clock = 0; clock <= m.top_clock; ++clock) {
    int rung = table.least_rung(w, clock, static_cast<float>(deadline_ms / slower));
    if (rung < 0 && clock < m.top_clock) continue;
    if (rung < 0) rung = m.full_rung;
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
inline packing::Item demand_of(const PaperModel& m, const Observed& load, double window_ms) {
  constexpr double kPrefillShare = 0.5;  // of time, at most: the rest is for decodes
  const double context = load.input_tokens + load.output_tokens / 2;
  const PhasePoint p = phase_point(m, Phase::prefill, load.input_tokens, 0,
                                   std::min(load.ttft_ms, kPrefillShare / load.per_ms));
  PhasePoint d{};
  double batch = 1;
  for (int round = 0; round < 3; ++round) {
    d = phase_point(m, Phase::decode, batch, context, load.tbt_ms);
    batch = std::max(1.0, load.per_ms * load.output_tokens * d.latency_ms);
  }
  const double decode_ms = load.output_tokens * d.latency_ms;
  const double whole_ms = p.latency_ms + decode_ms;
  const double prefill_j = p.power_w * p.latency_ms;
  const double decode_j = d.power_w * decode_ms;
  const double in_flight = load.per_ms * whole_ms;
  return {(p.sms * p.latency_ms + d.sms * decode_ms) / whole_ms,
          m.weight_bytes +
              in_flight * (m.kv_bytes_per_token * (load.input_tokens + load.output_tokens)),
          (p.clock_mhz * prefill_j + d.clock_mhz * decode_j) / (prefill_j + decode_j),
          window_ms * load.per_ms * (p.latency_ms + decode_ms / batch)};
}

// What a model needs that is at work, though nobody has asked for it of late.
inline packing::Item least_demand_of(const PaperModel& m) {
  return {static_cast<double>(m.table.sms(0)), m.weight_bytes,
          static_cast<double>(m.table.clock_mhz(0)), 0};
}

using Bins = std::vector<std::vector<int>>;  // places of items

// The items of each GPU, if fewer than `active` will do.
inline std::optional<Bins> fewer_gpus(std::span<const packing::Item> items,
                                      const packing::Capacity& capacity, std::size_t active) {
  const int needed = std::max(1, packing::gpus_needed(items, capacity));
  if (static_cast<std::size_t>(needed) >= active) return std::nullopt;
  Bins bins = packing::Replacement(items, capacity).place(needed);
  if (bins.size() >= active) return std::nullopt;
  return bins;
}

// The GPU of each bin, out of `gpus`, so that the least has to be transferred;
// `transfer_ms(bin, gpu)` says how much that is.
template <class Transfer>
std::vector<int> gpus_of(const Bins& bins, std::span<const int> gpus, Transfer transfer_ms) {
  packing::Costs costs;
  for (const std::vector<int>& bin : bins) {
    std::vector<double>& row = costs.emplace_back();
    for (const int gpu : gpus) row.push_back(transfer_ms(bin, gpu));
  }
  std::vector<int> found;
  for (const int column : packing::assign(costs)) {
    found.push_back(gpus[static_cast<std::size_t>(column)]);
  }
  return found;
}

}  // namespace festina::consolidation
