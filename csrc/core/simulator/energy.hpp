#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"

// What steps cost in truth, and the joules that GPUs draw.
namespace festina::simulator {

inline void Cluster::reprice(const Gpu& g, Step& s) {
  const Deployment& d = deployments_[static_cast<std::size_t>(s.lane->model)];
  const auto phase = static_cast<std::size_t>(s.work.phase());
  const Price p = price(truth_, d.profile, s.work, s.rung, g.clock);
  const double slower = d.time_bias[phase] * s.noise;
  s.alone_ms = p.latency_ms * slower;
  s.dynamic_w = p.power_w * d.power_bias[phase];
  s.bytes_per_s = p.bytes_per_s / slower;
}

inline void Cluster::settle(Gpu& g) {
  const double passed_ms = now_ms_ - g.settled_ms;
  if (passed_ms <= 0) return;
  meter_.add(g.settled_ms, now_ms_, g.power_w, g.kind, g.power != Power::parked,
             table().clock_mhz(g.clock));
  g.settled_ms = now_ms_;
  if (g.steps.empty()) {
    g.overhead_j += g.power_w * passed_ms / 1000.0;
    return;
  }
  g.busy_ms += passed_ms;
  double dynamic_w = 0;
  for (const Step& s : g.steps) dynamic_w += s.dynamic_w / g.stretch;
  const double shared_w = (g.power_w - dynamic_w) / static_cast<double>(g.steps.size());
  for (Step& s : g.steps) {
    s.left -= passed_ms / (s.alone_ms * g.stretch);
    s.energy_j += (s.dynamic_w / g.stretch + shared_w) * passed_ms / 1000.0;
  }
}

inline void Cluster::rerate(Gpu& g) {
  g.stretch = 1;
  if (g.power != Power::awake) {
    g.power_w = g.power == Power::parked ? device_.parked_w : truth_.idle_w(g.clock);
    g.kind = g.power == Power::parked ? EnergyKind::parked : EnergyKind::switching;
    return;
  }
  double dynamic_w = 0, bytes_per_s = 0;
  for (const Step& s : g.steps) {
    dynamic_w += s.dynamic_w;
    bytes_per_s += s.bytes_per_s;
  }
  if (g.steps.size() > 1) {
    g.stretch = std::max(1.0, bytes_per_s / device_.bandwidth_bytes_per_s);
  }
  const double idle_w = truth_.idle_w(g.clock);
  double copies_w = 0;
  if (g.loads > 0) copies_w += device_.byte_j * device_.load_bytes_per_s;
  if (g.moves > 0) copies_w += device_.byte_j * device_.peer_bytes_per_s;
  const double room_w = std::max(1.0, device_.power_cap_w - idle_w - copies_w);
  g.stretch = std::max(g.stretch, dynamic_w / room_w);
  g.power_w = idle_w + copies_w + dynamic_w / g.stretch;
  g.kind = !g.steps.empty() ? EnergyKind::active
           : g.loads > 0    ? EnergyKind::loading
           : g.moves > 0    ? EnergyKind::migrating
           : g.switching()  ? EnergyKind::switching
                            : EnergyKind::idle;
  if (g.steps.empty()) return;
  double first_ms = kNever;
  for (const Step& s : g.steps) first_ms = std::min(first_ms, s.left * s.alone_ms * g.stretch);
  events_.push(now_ms_ + std::max(first_ms, 0.0), EventKind::step_end, g.index, 0,
               ++g.step_version);
}

}  // namespace festina::simulator
