#pragma once
#include <algorithm>
#include <cstddef>
#include <optional>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/festina_clock.hpp"
#include "core/simulator/policies/residency.hpp"

// Which GPUs are needed at all (DESIGN 4.3): a GPU is emptied and parked when the power saved over
// the time that the load is expected to stay low is worth more than the moves, the reloads and the
// wake; and woken before its capacity is missed. One GPU at a time, and none twice within a dwell,
// so that it never oscillates.
namespace festina::simulator {

struct ConsolidationOptions {
  bool consolidation = true;  // else only GPUs that nobody uses are parked
  bool parking = true;        // else none is
  bool forecast = true;       // GPUs are woken by the load of late, not only by arrivals
  double every_ms = 10'000;
  double stay_ms = 120'000;     // a GPU stays awake, and parked, at least this long
  double horizon_ms = 300'000;  // how long the load is expected to stay as it is
  double least_w = 25;          // a smaller saving is not worth the risk
  double rare = 0.2;            // arrivals over the horizon below which weights may go
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
    if (options_.forecast && wake_ahead(c, clock)) return;
    std::optional<Drain> best;
    for (int i = 0; i < c.gpus(); ++i) {
      std::optional<Drain> found = consider(c, clock, c.gpu(i));
      if (found && (!best || found->gain_j > best->gain_j)) best = std::move(found);
    }
    if (!best) return;
    drain_ = std::move(best);
    for (const Move& m : drain_->moves) {
      Gpu& to = c.gpu(m.to);
      if (c.lane(to, m.model).weights == Weights::absent) c.load(to, m.model);
    }
    advance(c, c.gpu(drain_->gpu));
  }

  // Moves what can move off a GPU that is being emptied, and parks it once it is empty.
  void advance(Cluster& c, Gpu& g) {
    for (const Move& m : drain_->moves) {
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
  struct Move {
    int model;
    int to;
  };
  struct Drain {
    int gpu;
    double gain_j;
    std::vector<Move> moves;
  };

  void mark(const Cluster& c, const Gpu& g) {
    since_ms_[static_cast<std::size_t>(g.index)] = c.now_ms();
  }
  bool settled(const Cluster& c, const Gpu& g) const {
    return c.now_ms() - since_ms_[static_cast<std::size_t>(g.index)] >= options_.stay_ms;
  }

  // What it would gain to empty and park this GPU over the horizon; nothing if it cannot be.
  std::optional<Drain> consider(Cluster& c, FestinaClock& clock, const Gpu& g) const {
    if (!open(g) || g.loads > 0 || !settled(c, g)) return std::nullopt;
    if (g.requests > 0 && !options_.consolidation) return std::nullopt;
    clock::GpuLoad own;
    clock.add(c, g, own);
    const double now_w = clock.plan(c, own, g.clock).power_w;
    Drain drain{g.index, 0, {}};
    std::vector<std::vector<const Lane*>> added(static_cast<std::size_t>(c.gpus()));
    std::vector<double> claimed(added.size(), 0.0);
    double moved_bytes = 0;
    for (const auto& lane : g.lanes) {
      const Lane& l = *lane;
      const double expected = clock.per_ms(c, g, l.model) * options_.horizon_ms;
      if (l.empty() && (expected < options_.rare || held_elsewhere(c, g, l.model))) continue;
      const int to = target(c, g, l, claimed);
      if (to == kNone) return std::nullopt;
      const double weights = needs_weights(c.gpu(to), l.model) ? c.weight_bytes(l.model) : 0;
      claimed[static_cast<std::size_t>(to)] += weights + l.reserved_bytes;
      moved_bytes += weights + l.reserved_bytes;
      added[static_cast<std::size_t>(to)].push_back(&l);
      drain.moves.push_back({l.model, to});
    }
    double saved_w = now_w - c.device().parked_w;
    bool others = false;
    for (int i = 0; i < c.gpus(); ++i) {
      const Gpu& to = c.gpu(i);
      others = others || (open(to) && i != g.index);
      const std::vector<const Lane*>& guests = added[static_cast<std::size_t>(i)];
      if (guests.empty()) continue;
      clock::GpuLoad load;
      clock.add(c, to, load);
      const double before_w = clock.plan(c, load, to.clock).power_w;
      for (const Lane* guest : guests) clock.add(c, g, *guest, load);
      const clock::Plan after = clock.plan(c, load, to.clock);
      if (!after.fits) return std::nullopt;
      saved_w -= after.power_w - before_w;
    }
    if (!others || saved_w < options_.least_w) return std::nullopt;
    const double wake_j = c.table().idle_w(c.default_clock()) * c.device().wake_ms / 1000.0;
    const double moves_j = 2 * moved_bytes * c.device().byte_j;  // there, and some time back
    drain.gain_j = saved_w * options_.horizon_ms / 1000.0 - wake_j - moves_j;
    if (drain.gain_j <= 0) return std::nullopt;
    return drain;
  }

  static bool needs_weights(const Gpu& g, int model) {
    const Lane* l = g.lane(model);
    return l == nullptr || l->weights == Weights::absent;
  }
  bool held_elsewhere(Cluster& c, const Gpu& g, int model) const {
    for (int i = 0; i < c.gpus(); ++i) {
      if (i != g.index && open(c.gpu(i)) && !needs_weights(c.gpu(i), model)) return true;
    }
    return false;
  }

  // Where the lane may go: where its weights are, else where the least memory is left after it.
  int target(Cluster& c, const Gpu& g, const Lane& l, const std::vector<double>& claimed) const {
    int best = kNone;
    double least = kNever;
    for (int i = 0; i < c.gpus(); ++i) {
      const Gpu& to = c.gpu(i);
      if (i == g.index || !open(to)) continue;
      const bool held = !needs_weights(to, l.model);
      const double need = (held ? 0 : c.weight_bytes(l.model)) + l.reserved_bytes;
      const double left = c.memory_free_bytes(to) - claimed[static_cast<std::size_t>(i)] - need;
      if (left < 0) continue;
      const double rank = held ? -1 : left;
      if (rank < least) {
        least = rank;
        best = i;
      }
    }
    return best;
  }

  // The load of late is more than an awake GPU can keep in time: another one will be needed.
  bool wake_ahead(Cluster& c, FestinaClock& clock) {
    for (int i = 0; i < c.gpus(); ++i) {
      const Gpu& g = c.gpu(i);
      if (!g.awake()) continue;
      clock::GpuLoad load;
      clock.add(c, g, load);
      if (clock.plan(c, load, g.clock).fits) continue;
      for (int k = 0; k < c.gpus(); ++k) {
        if (c.gpu(k).power != Power::parked) continue;
        wake(c, c.gpu(k));
        return true;
      }
    }
    return false;
  }

  ConsolidationOptions options_;
  std::vector<double> since_ms_;  // by GPU: when it was last woken or parked
  std::optional<Drain> drain_;
  double ticked_ms_ = 0;
};

}  // namespace festina::simulator
