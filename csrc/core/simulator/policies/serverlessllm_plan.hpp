#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"

// Which GPU a model starts on soonest: ServerlessLLM's estimates (OSDI'24, section 6).
namespace festina::simulator {

// A GPU and the model whose turn it is.
struct Turn {
  int owner = kNone;
  int next = kNone;       // takes over when the owner's requests have moved to `refuge`
  int refuge = kNone;     // GPU
  bool reserved = false;  // a refuge before anyone has arrived
};

struct StartPlan {
  int gpu = kNone;
  int refuge = kNone;  // GPU that takes the requests in the way; kNone: nobody is in the way
  double start_ms = kNever;
};

class StartPlanner {
 public:
  explicit StartPlanner(bool migration) : migration_(migration) {}

  static bool idle(const Gpu& g, const Turn& turn) {
    if (turn.reserved || turn.refuge != kNone) return false;
    const Lane* l = turn.owner == kNone ? nullptr : g.lane(turn.owner);
    return l == nullptr || (l->empty() && !l->busy);
  }

  // Until the model's weights are ready on a GPU that nobody uses: loads before it on the same
  // link, the load from where the weights lie, and waking.
  static double ready_ms(const Cluster& c, const Gpu& g, int model) {
    const Lane* l = g.lane(model);
    if (g.awake() && l != nullptr && l->weights == Weights::ready) return 0;
    const double queue_ms = std::max(0.0, g.link_free_ms - c.now_ms());
    if (l != nullptr && l->weights == Weights::loading) return queue_ms;
    return (g.awake() ? 0 : c.device().wake_ms) + queue_ms + c.load_ms(model);
  }

  // The soonest start on an idle GPU, or on one whose requests move to an idle GPU. Ties go to the
  // most free memory, so that loads evict little.
  StartPlan best(Cluster& c, const std::vector<Turn>& turns, int model) const {
    StartPlan best;
    for (int i = 0; i < c.gpus(); ++i) {
      if (!idle(c.gpu(i), turns[static_cast<std::size_t>(i)])) continue;
      const double start_ms = ready_ms(c, c.gpu(i), model);
      const bool roomier = start_ms == best.start_ms &&
                           c.memory_free_bytes(c.gpu(i)) > c.memory_free_bytes(c.gpu(best.gpu));
      if (start_ms < best.start_ms || roomier) best = {i, kNone, start_ms};
    }
    if (!migration_ || best.gpu == kNone || best.start_ms <= 0) return best;
    for (int i = 0; i < c.gpus(); ++i) {
      const StartPlan plan = by_migration(c, turns, model, i);
      if (plan.start_ms < best.start_ms) best = plan;
    }
    return best;
  }

 private:
  // Frees a GPU that holds the weights: its owner's weights are made ready elsewhere while it goes
  // on, then its requests move, and the model starts.
  static StartPlan by_migration(Cluster& c, const std::vector<Turn>& turns, int model, int from) {
    const Turn& turn = turns[static_cast<std::size_t>(from)];
    const Gpu& g = c.gpu(from);
    StartPlan best;
    if (turn.owner == kNone || turn.reserved || turn.refuge != kNone) return best;
    const Lane* wanted = g.lane(model);
    if (wanted == nullptr || wanted->weights != Weights::ready) return best;
    const Lane& l = *g.lane(turn.owner);
    if (l.weights != Weights::ready || l.incoming > 0) return best;
    double move_ms = 0;
    for (const int r : l.running) move_ms = std::max(move_ms, c.move_ms(r));
    for (int i = 0; i < c.gpus(); ++i) {
      if (i == from || !idle(c.gpu(i), turns[static_cast<std::size_t>(i)])) continue;
      const double start_ms = ready_ms(c, c.gpu(i), turn.owner) + move_ms;
      if (start_ms < best.start_ms) best = {from, i, start_ms};
    }
    return best;
  }

  bool migration_;
};

}  // namespace festina::simulator
