#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/residency.hpp"

// Carries a new placement out while requests run (arXiv 2606.30391, appendix F): weights first,
// then the requests that are worth it, then the emptied GPU is parked. Weights come from host
// memory or storage like any load here, not from the peer that holds them.
namespace festina::simulator {

class PaperMoves {
 public:
  explicit PaperMoves(const Cluster& c)
      : target_(static_cast<std::size_t>(c.models()), kNone),
        draining_(static_cast<std::size_t>(c.gpus()), false) {}

  bool any() const noexcept { return any_; }
  bool draining(const Gpu& g) const { return draining_[static_cast<std::size_t>(g.index)]; }

  // From now on `target[m]` is where model m belongs, kNone for one that may stay where it is; GPUs
  // that are `draining` are to be emptied.
  void begin(Cluster& c, std::vector<int> target, std::vector<bool> draining) {
    target_ = std::move(target);
    draining_ = std::move(draining);
    any_ = true;
    began_ms_ = c.now_ms();
    advance(c);
  }

  // Does what can be done now.
  void advance(Cluster& c) {
    if (!any_) return;
    if (c.now_ms() - began_ms_ > kPatienceMs) return give_up();
    any_ = false;
    for (int m = 0; m < c.models(); ++m) {
      if (target(m) != kNone && move_model(c, m)) target(m) = kNone;
      any_ = any_ || target(m) != kNone;
    }
    for (int i = 0; i < c.gpus(); ++i) {
      if (!draining(c.gpu(i))) continue;
      draining_[static_cast<std::size_t>(i)] = !emptied(c, c.gpu(i));
      any_ = any_ || draining_[static_cast<std::size_t>(i)];
    }
  }

  // GPUs that take no new request of the model. Valid until the next call.
  const std::vector<int>& closed(Cluster& c, int model) {
    closed_.clear();
    if (!any_) return closed_;
    const bool ready = has(c, target(model), model);
    for (int i = 0; i < c.gpus(); ++i) {
      const bool leaves = target(model) != kNone && i != target(model) && has(c, i, model);
      if (leaves ? ready : draining(c.gpu(i))) closed_.push_back(i);
    }
    return closed_;
  }

  // Where a request of the model should go on that has been prefilled on `here`.
  int onward(Cluster& c, int model, int here) {
    const int to = target(model);
    return any_ && to != here && has(c, to, model) ? to : here;
  }

  // The destination admits a request only once there is room for all that it is expected to need.
  static bool admits(const Cluster& c, const Gpu& to, int r) {
    return c.expected_kv_bytes(r) <= c.memory_free_bytes(to);
  }

 private:
  static constexpr double kPatienceMs = 60'000;  // two moves may wait for each other's memory

  int& target(int model) { return target_[static_cast<std::size_t>(model)]; }

  static bool has(Cluster& c, int gpu, int model) {
    if (gpu == kNone) return false;
    const Lane* l = c.gpu(gpu).lane(model);
    return l != nullptr && l->weights == Weights::ready;
  }

  void give_up() {
    std::fill(target_.begin(), target_.end(), kNone);
    std::fill(draining_.begin(), draining_.end(), false);
    any_ = false;
  }

  // True once the model is where it belongs and nowhere else.
  bool move_model(Cluster& c, int model) {
    Gpu& to = c.gpu(target(model));
    const Lane* there = to.lane(model);
    if (there == nullptr || there->weights == Weights::absent) {
      if (to.awake() && free_memory(c, to, c.weight_bytes(model))) c.load(to, model);
      return false;
    }
    if (there->weights != Weights::ready) return false;
    bool done = true;
    for (int i = 0; i < c.gpus(); ++i) {
      Gpu& from = c.gpu(i);
      if (i == to.index || from.lane(model) == nullptr) continue;
      done = leave(c, from, model, to) && done;
    }
    return done;
  }

  // True once nothing of the model is left on `from`.
  static bool leave(Cluster& c, Gpu& from, int model, Gpu& to) {
    Lane& l = *from.lane(model);
    forward_waiting(c, l, to);
    if (l.busy) return false;
    const std::vector<int> running = l.running;
    for (const int r : running) {
      if (!worth_moving(c, l, from, r)) continue;
      if (!admits(c, to, r)) break;
      if (recompute_ms(c, l, to, r) >= c.move_ms(r)) {
        c.migrate(r, to);
      } else {
        c.evict(r);
        c.withdraw(r);
        c.enqueue(to, r);
      }
    }
    if (!l.empty() || l.weights == Weights::loading) return false;
    if (l.weights == Weights::ready) c.unload(from, model);
    return true;
  }

  // Those that have begun finish their prefill where they are.
  static void forward_waiting(Cluster& c, const Lane& l, Gpu& to) {
    const std::vector<int> waiting(l.waiting.begin(), l.waiting.end());
    for (const int r : waiting) {
      if (c.admitted(r)) continue;
      c.withdraw(r);
      c.enqueue(to, r);
    }
  }

  // What is left takes longer than the move.
  static bool worth_moving(const Cluster& c, const Lane& l, const Gpu& from, int r) {
    const Request& q = c.request(r);
    const double left = std::max(1.0, c.expected_output(l.model) - q.generated);
    const auto batch = static_cast<int>(l.running.size());
    return left * c.predict_ms(l, batch, {}, c.full_rung(), from.clock) > c.move_ms(r);
  }
  static double recompute_ms(const Cluster& c, const Lane& l, const Gpu& to, int r) {
    StepWork w;
    w.tokens = c.request(r).prompt_tokens();
    return c.belief().step(l.model, w, c.full_rung(), to.clock).latency_ms;
  }

  // Lets idle weights go; parks the GPU once it holds nothing.
  bool emptied(Cluster& c, Gpu& g) {
    for (std::size_t i = 0; i < g.lanes.size();) {
      const Lane& l = *g.lanes[i];
      if (evictable(l) && target(l.model) == kNone) {
        c.unload(g, l.model);
        i = 0;
      } else {
        ++i;
      }
    }
    const bool empty =
        g.weight_bytes <= 0 && g.requests == 0 && g.steps.empty() && g.loads == 0 && g.moves == 0;
    if (empty && g.awake()) c.park(g);
    return empty;
  }

  std::vector<int> target_;     // by model
  std::vector<bool> draining_;  // by GPU
  bool any_ = false;
  double began_ms_ = 0;
  std::vector<int> closed_;
};

}  // namespace festina::simulator
