#pragma once
#include <cstddef>
#include <optional>
#include <utility>
#include <vector>

#include "core/consolidation/festina.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/festina_clock.hpp"
#include "core/simulator/policies/residency.hpp"

// Which GPUs are needed at all, on simulated GPUs (csrc/core/consolidation): one at a time is
// emptied and parked, or woken, and none twice within a dwell, so that it never oscillates.
namespace festina::simulator {

struct ConsolidationOptions : consolidation::Options {
  bool parking = true;   // else no GPU is parked
  bool forecast = true;  // GPUs are woken by the load of late, not only by arrivals
  double every_ms = 10'000;
  double stay_ms = 120'000;  // a GPU stays awake, and parked, at least this long
};

// What GPUs of a simulated cluster cost: a `World` of `consolidation::Festina`.
struct SimulatedWorld {
  const Cluster& cluster;

  ClockCost cost(int /*gpu*/) const { return {cluster}; }
  int profile(int /*gpu*/, int model) const { return model; }
  double parked_w(int /*gpu*/) const { return cluster.device().parked_w; }
  double wake_ms(int /*gpu*/) const { return cluster.device().wake_ms; }
  double wake_j(int /*gpu*/) const {
    return cluster.table().idle_w(cluster.default_clock()) * cluster.device().wake_ms / 1000.0;
  }
  double byte_j(int /*gpu*/) const { return cluster.device().byte_j; }
};

class FestinaConsolidation {
 public:
  FestinaConsolidation(const ConsolidationOptions& options, int gpus)
      : options_(options), since_ms_(static_cast<std::size_t>(gpus), -kNever) {}

  bool draining(const Gpu& g) const { return drain_ && drain_->gpu == g.index; }
  bool open(const Gpu& g) const { return g.awake() && !draining(g); }

  // Every now and then: starts to empty a GPU, or wakes one.
  void tick(Cluster& c, FestinaClock& clock) {
    if (!options_.parking || c.now_ms() - ticked_ms_ < options_.every_ms) return;
    ticked_ms_ = c.now_ms();
    if (drain_) return advance(c, c.gpu(drain_->gpu));
    const SimulatedWorld world{c};
    consolidation::Festina<SimulatedWorld> festina(options_, clock.planner());
    const std::vector<consolidation::GpuState> gpus = states(c, clock);
    if (options_.forecast) {
      if (const auto found = festina.wake_ahead(world, gpus, c.now_ms())) {
        return wake(c, c.gpu(found->gpu));
      }
    }
    std::vector<consolidation::Drain> best = festina.drains(world, gpus, c.now_ms());
    if (best.empty()) return;
    drain_ = std::move(best.front());
    for (const consolidation::Move& m : drain_->moves) {
      Gpu& to = c.gpu(m.to);
      if (c.lane(to, m.model).weights == Weights::absent) c.load(to, m.model);
    }
    advance(c, c.gpu(drain_->gpu));
  }

  // Moves what can move off a GPU that is being emptied, and parks it once it is empty.
  void advance(Cluster& c, Gpu& g) {
    for (const consolidation::Move& m : drain_->moves) {
      Lane* l = g.lane(m.model);
      Gpu& to = c.gpu(m.to);
      if (l == nullptr || l->busy || c.lane(to, m.model).weights != Weights::ready) continue;
      while (!l->waiting.empty() && !c.admitted(l->waiting.front())) {
        const int r = l->waiting.front();
        c.withdraw(r);
        c.enqueue(to, r);
      }
      while (!l->running.empty()) c.migrate(l->running.back(), to);
    }
    if (g.requests > 0 || g.loads > 0 || !g.steps.empty()) return;
    while (!g.lanes.empty()) c.unload(g, g.lanes.back()->model);
    c.park(g);
    mark(c, g);
    drain_.reset();
  }

  // A request goes to this GPU after all.
  void keep(const Gpu& g) {
    if (draining(g)) drain_.reset();
  }

  void wake(Cluster& c, Gpu& g) {
    if (g.power != Power::parked) return;
    c.wake(g);
    mark(c, g);
  }

 private:
  void mark(const Cluster& c, const Gpu& g) {
    since_ms_[static_cast<std::size_t>(g.index)] = c.now_ms();
  }
  bool settled(const Cluster& c, const Gpu& g) const {
    return c.now_ms() - since_ms_[static_cast<std::size_t>(g.index)] >= options_.stay_ms;
  }

  std::vector<consolidation::GpuState> states(Cluster& c, const FestinaClock& clock) const {
    std::vector<consolidation::GpuState> states;
    for (int i = 0; i < c.gpus(); ++i) {
      const Gpu& g = c.gpu(i);
      consolidation::GpuState& s = states.emplace_back();
      s.awake = g.awake();
      s.open = open(g);
      s.parked = g.power == Power::parked;
      s.settled = s.parked || settled(c, g);
      s.loading = g.loads > 0;
      s.requests = g.requests;
      s.clock = g.clock;
      s.free_bytes = c.memory_free_bytes(g);
      for (const auto& l : g.lanes) s.residents.push_back(resident(c, clock, g, *l));
    }
    return states;
  }
  static consolidation::Resident resident(const Cluster& c, const FestinaClock& clock, const Gpu& g,
                                          const Lane& l) {
    clock::GpuLoad load;
    clock.add(c, g, l, load);
    return {
        l.model,   load.models.front(),     std::move(load.waiting), l.weights != Weights::absent,
        l.empty(), c.weight_bytes(l.model), l.reserved_bytes};
  }

  ConsolidationOptions options_;
  std::vector<double> since_ms_;  // by GPU: when it was last woken or parked
  std::optional<consolidation::Drain> drain_;
  double ticked_ms_ = 0;
};

}  // namespace festina::simulator
