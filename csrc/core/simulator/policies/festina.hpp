#pragma once
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/placement/cluster_view.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/festina_clock.hpp"
#include "core/simulator/policies/festina_consolidate.hpp"
#include "core/simulator/policies/festina_local.hpp"
#include "core/simulator/policies/make_way.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/policies/summaries.hpp"
#include "core/simulator/settings.hpp"

namespace festina::simulator {

struct FestinaOptions {
  local::Options local;
  ClockOptions clock;
  ConsolidationOptions consolidation;
  double kv_headroom = 2;    // KV cache planned for, over the mean of the declared load
  double pace_tbt_ms = 100;  // batches are planned for this gap between tokens
  double tick_ms = 500;
  bool place = true;
  bool sticky = true;
  placement::Options placement;
  double summary_ms = 20;  // agents report at most this often

  explicit FestinaOptions(Settings& from) {
    from.take("pace", local.pace);
    from.take("mix", local.mix);
    from.take("sigmas", local.sigmas);
    from.take("margin", local.margin);
    clock.margin = local.margin;
    double chunk_tokens = local.chunk_tokens;
    from.take("chunk_tokens", chunk_tokens, 1);
    local.chunk_tokens = static_cast<int>(chunk_tokens);
    from.take("by_deadline", local.by_deadline);
    from.take("least_chunk", local.least_chunk);
    from.take("turns", local.turns);
    from.take("clocks", clock.clocks);
    from.take("below_knee", clock.below_knee);
    from.take("raise", clock.raise);
    from.take("hysteresis", clock.hysteresis);
    from.take("utilisation", clock.utilisation);
    if (clock.utilisation <= 0 || clock.utilisation >= 1) {
      throw BadInput("options.utilisation", "above 0 and below 1");
    }
    from.take("dwell_ms", clock.dwell_ms);
    from.take("place", place);
    from.take("join_batches", sticky);
    from.take("consolidation", consolidation.consolidation);
    from.take("parking", consolidation.parking);
    from.take("forecast", consolidation.forecast);
    from.take("least_w", consolidation.least_w);
    from.take("kv_headroom", kv_headroom);
  }
};

// Ours (DESIGN 4): marginal-energy placement, paced batches, the clock of least power.
class Festina : public Policy {
 public:
  Festina(const FestinaOptions& options, int gpus)
      : options_(options),
        local_(options.local),
        clock_(options.clock, gpus),
        consolidation_(options.consolidation, gpus) {}

  void start(Cluster& c) override {
    view_ = std::make_unique<Summaries>(c, options_.placement, options_.summary_ms);
    preload_spread(c, options_.kv_headroom, options_.pace_tbt_ms);
  }

  void arrived(Cluster& c, int r) override {
    const int slot = options_.place ? place(c, r) : home(c, r);
    Gpu& g = c.gpu(slot);
    consolidation_.keep(g);
    consolidation_.wake(c, g);
    clock_.arrived(c, g, r);
    c.enqueue(g, r);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (consolidation_.draining(g)) consolidation_.advance(c, g);
    load_wanted(c, g);
    make_room_for_caches(c, g);
    clock_.govern(c, g);
    local_.dispatch(c, g);
  }

  // GPUs that nothing happens on find their way to a lower clock, too.
  double tick_ms() const override { return options_.tick_ms; }
  void tick(Cluster& c) override {
    consolidation_.tick(c, clock_);
    for (int i = 0; i < c.gpus(); ++i) {
      if (c.gpu(i).steps.empty()) c.touch(c.gpu(i));
    }
  }

 private:
  int home(Cluster& c, int r) const {
    const int slot = holder(c, c.request(r).model);
    return slot == kNone ? guest(c, r) : slot;
  }

  // The GPU where the request joins the largest batch of its model, among those that can serve it.
  int batch_mate(Cluster& c, int r) {
    const int model = c.request(r).model;
    int best = kNone;
    std::size_t most = 0;
    for (int i = 0; i < c.gpus(); ++i) {
      const Gpu& g = c.gpu(i);
      const Lane* l = g.lane(model);
      if (l == nullptr || l->weights == Weights::absent || !consolidation_.open(g)) continue;
      const std::size_t batch = l->running.size() + l->waiting.size() + 1;
      if (batch <= most) continue;
      if (eviction_cost_ms(c, g, c.expected_kv_bytes(r)) == kNever) continue;
      if (!clock_.could_serve(c, g, r)) continue;
      most = batch;
      best = i;
    }
    return best;
  }

  int place(Cluster& c, int r) {
    if (const int near = options_.sticky ? batch_mate(c, r) : kNone; near != kNone) return near;
    const int output = static_cast<int>(std::lround(c.expected_output(c.request(r).model)));
    try {
      const placement::Placement p = view_->place(c, r, std::max(1, output), {});
      view_->reserve(c, p.slot, r, std::max(1, output));
      return p.slot;
    } catch (const placement::Refusal&) {
      return home(c, r);  // it waits rather than being refused
    }
  }

  // Where a model that no GPU holds is loaded; with its requests that wait for that already, if
  // any.
  static int guest(Cluster& c, int r) {
    const int model = c.request(r).model;
    for (int i = 0; i < c.gpus(); ++i) {
      const Lane* l = c.gpu(i).lane(model);
      if (l != nullptr && !l->empty()) return i;
    }
    const int best = cheapest_to_load(c, bytes_to_serve(c, r));
    if (best != kNone) return best;
    for (int i = 0; i < c.gpus(); ++i) {
      if (c.gpu(i).power == Power::parked) return i;
    }
    return least_busy(c);
  }

  FestinaOptions options_;
  std::unique_ptr<Summaries> view_;
  FestinaLocal local_;
  FestinaClock clock_;
  FestinaConsolidation consolidation_;
};

}  // namespace festina::simulator
