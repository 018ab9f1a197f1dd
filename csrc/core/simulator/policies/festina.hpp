#pragma once
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "core/placement/cluster_view.hpp"
#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/festina_clock.hpp"
#include "core/simulator/policies/festina_local.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/settings.hpp"

namespace festina::simulator {

struct FestinaOptions {
  local::Options local;
  ClockOptions clock;
  double kv_reserve = 0.1;   // share of memory that stays free of weights at the start
  double pace_tbt_ms = 100;  // batches are planned for this gap between tokens
  double summary_ms = 20;    // agents report at most this often

  explicit FestinaOptions(Settings& from) {
    from.take("pace", local.pace);
    from.take("mix", local.mix);
    from.take("sigmas", local.sigmas);
    from.take("margin", local.margin);
    clock.margin = local.margin;
    double chunk_tokens = local.chunk_tokens;
    from.take("chunk_tokens", chunk_tokens);
    local.chunk_tokens = static_cast<int>(chunk_tokens);
    from.take("clocks", clock.clocks);
    from.take("hysteresis", clock.hysteresis);
    from.take("utilisation", clock.utilisation);
    from.take("dwell_ms", clock.dwell_ms);
    from.take("kv_reserve", kv_reserve);
  }
};

// Ours (DESIGN 4): marginal-energy placement, paced batches, the clock of least power.
class Festina : public Policy {
 public:
  Festina(const FestinaOptions& options, int gpus)
      : options_(options), local_(options.local), clock_(options.clock, gpus) {}

  void start(Cluster& c) override { preload_spread(c, options_.kv_reserve, options_.pace_tbt_ms); }

  void arrived(Cluster& c, int r) override {
    const int model = c.request(r).model;
    int slot = holder(c, model);
    if (slot == kNone) slot = guest(c, model);
    Gpu& g = c.gpu(slot);
    clock_.arrived(c, g, r);
    c.enqueue(g, r);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    load_wanted(c, g);
    clock_.govern(c, g);
    local_.dispatch(c, g);
  }

 private:
  // Where a model that no GPU holds is loaded: the most memory, evictable weights included.
  static int guest(Cluster& c, int model) {
    int best = 0;
    double most = -kNever;
    for (int i = 0; i < c.gpus(); ++i) {
      Gpu& g = c.gpu(i);
      if (const Lane* l = g.lane(model); l != nullptr && !l->empty()) return i;  // already wanted
      const double room = c.memory_free_bytes(g) + evictable_bytes(c, g) - 1e9 * g.requests;
      if (room > most) {
        most = room;
        best = i;
      }
    }
    return best;
  }

  static void load_wanted(Cluster& c, Gpu& g) {
    if (!g.awake()) return;
    for (std::size_t i = 0; i < g.lanes.size(); ++i) {
      const Lane& l = *g.lanes[i];
      if (l.weights != Weights::absent || l.empty()) continue;
      const int model = l.model;
      const double need = c.weight_bytes(model) + c.expected_kv_bytes(l.waiting.front());
      if (!free_memory(c, g, need)) continue;
      c.load(g, model);
      i = 0;  // unloading reorders lanes
    }
  }

  FestinaOptions options_;
  FestinaLocal local_;
  FestinaClock clock_;
};

}  // namespace festina::simulator
