#pragma once
#include <algorithm>
#include <cstddef>
#include <vector>

#include "core/clock/governor.hpp"
#include "core/clock/planner.hpp"
#include "core/clock/recent.hpp"
#include "core/simulator/cluster.hpp"

// Our clock rule (csrc/core/clock) on simulated GPUs: what they hold and what came to them, as it
// sees them.
namespace festina::simulator {

struct ClockOptions : clock::Options {
  bool clocks = true;  // else the default clock
};

// What the clock rule believes of a cluster's GPUs: a `Cost` of `clock::Planner`.
struct ClockCost {
  const Cluster& cluster;

  int clocks() const { return cluster.top_clock() + 1; }
  double idle_w(int clock) const { return cluster.table().idle_w(clock); }
  double switch_ms() const { return cluster.device().clock_switch_ms; }
  Price step(int model, const StepWork& w, int clock) const {
    return cluster.belief().step(model, w, cluster.full_rung(), clock);
  }
  double spread(int model, const StepWork& w, int /*clock*/) const {
    return cluster.belief().spread(model, w.phase());
  }
};

class FestinaClock {
 public:
  // Throws BadInput if an option is out of range.
  FestinaClock(const ClockOptions& options, int gpus)
      : options_(options), planner_(options), gpus_(static_cast<std::size_t>(gpus)) {}

  // A prompt came to this GPU.
  void arrived(const Cluster& c, const Gpu& g, int r) {
    State& s = state(g);
    const Request& q = c.request(r);
    if (s.recent.empty()) s.recent.resize(static_cast<std::size_t>(c.models()));
    s.recent[static_cast<std::size_t>(q.model)].add(
        ClockCost{c}, q.model,
        {q.input_tokens - q.cached_tokens, q.cached_tokens, static_cast<double>(q.ttft_ms)},
        options_.memory_ms, c.now_ms());
    s.governor.arrived();
  }

  // The request would have its first token in time here, if the clock went up as far as it can, and
  // tokens would stay in time.
  bool could_serve(const Cluster& c, const Gpu& g, int r) {
    load_.clear();
    for (const auto& l : g.lanes) {
      load_.models.push_back(model_load(c, g, *l));
      add_waiting(c, *l, l->waiting.size(), load_);
    }
    const Request& q = c.request(r);
    const Lane* own = g.lane(q.model);
    const bool held = own != nullptr && own->weights == Weights::ready;
    return planner_.could_serve(ClockCost{c}, load_, q.model,
                                {q.uncached(), q.cached(), static_cast<double>(q.ttft_ms)},
                                held ? 0 : c.load_ms(q.model), g.clock_target);
  }

  // What a model asks of the GPU that it is on, added to `load`.
  void add(const Cluster& c, const Gpu& g, const Lane& l, clock::GpuLoad& load) const {
    load.models.push_back(model_load(c, g, l));
    if (l.weights == Weights::ready) add_waiting(c, l, clock::kAhead, load);
  }
  void add(const Cluster& c, const Gpu& g, clock::GpuLoad& load) const {
    for (const auto& l : g.lanes) add(c, g, *l, load);
  }

  clock::Plan plan(const Cluster& c, const clock::GpuLoad& load, int clock_now) {
    return planner_.plan(ClockCost{c}, load, clock_now, c.now_ms());
  }

  clock::Planner& planner() { return planner_; }

  // Sets the clock that the GPU should have, at most every few milliseconds.
  void govern(Cluster& c, Gpu& g) {
    if (!options_.clocks || !g.awake()) return;
    clock::Governor& governor = state(g).governor;
    if (!governor.due(c.now_ms())) return;
    load_.clear();
    add(c, g, load_);
    c.set_clock(
        g, governor.decide(planner_, ClockCost{c}, load_, g.clock, g.clock_target, c.now_ms()));
  }

 private:
  struct State {
    std::vector<clock::Recent> recent;  // by model; none before the first prompt
    clock::Governor governor;
  };

  State& state(const Gpu& g) { return gpus_[static_cast<std::size_t>(g.index)]; }

  clock::ModelLoad model_load(const Cluster& c, const Gpu& g, const Lane& l) const {
    clock::ModelLoad load;
    load.model = l.model;
    if (!l.running.empty()) {
      load.running = std::min(static_cast<int>(l.running.size()), c.setup().batch_max);
      load.context_mean = l.context_tokens / static_cast<double>(l.running.size());
      load.tbt_ms = l.tbt_ms;
      load.due_ms = l.due_ms;
      load.busy = l.busy;
    }
    const State& s = gpus_[static_cast<std::size_t>(g.index)];
    if (!s.recent.empty()) {
      s.recent[static_cast<std::size_t>(l.model)].add_to(load, options_.memory_ms, c.now_ms());
    }
    return load;
  }

  static void add_waiting(const Cluster& c, const Lane& l, std::size_t most, clock::GpuLoad& load) {
    for (std::size_t k = 0; k < std::min(l.waiting.size(), most); ++k) {
      const Request& q = c.request(l.waiting[k]);
      load.waiting.push_back({l.model, l.waiting[k], q.uncached(), q.cached(), q.sent_ms,
                              static_cast<double>(q.ttft_ms)});
    }
  }

  ClockOptions options_;
  clock::Planner planner_;
  std::vector<State> gpus_;
  clock::GpuLoad load_;  // kept between calls
};

}  // namespace festina::simulator
