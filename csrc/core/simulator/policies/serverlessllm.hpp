#pragma once
#include <algorithm>
#include <cstddef>
#include <deque>
#include <vector>

#include "core/simulator/cluster.hpp"
#include "core/simulator/policies/continuous_batching.hpp"
#include "core/simulator/policies/residency.hpp"
#include "core/simulator/policies/serverlessllm_plan.hpp"
#include "core/simulator/settings.hpp"

// ServerlessLLM (Fu et al., OSDI'24, arXiv 2401.14351), by its published rules:
// - A GPU serves one model at a time, with the whole device (section 2); requests of that model
// join
//   its batch, those of others wait until it is their turn, first come, first served.
// - A model starts where it starts soonest: the estimate is the queue of loads before it plus its
//   size over the bandwidth of the tier where it lies (section 6.1).
// - Live migration (section 5): where the GPU that has the weights is taken, the inference on it
//   moves to another if that starts the model sooner; it goes on until the other GPU is ready.
// - Models stay in the fastest tier that has room: GPU memory, host memory, disk; least recently
//   used leave first (section 4). A GPU without work is given up after a keep-alive.
// In its favour: weights of idle models stay in GPU memory beside the one that runs, so that most
// turns begin without a load; a migration copies the KV cache over NVLink instead of recomputing it
// from tokens; the autoscaler sees queues without delay.
// Left out: multi-server download tiers (one server holds all checkpoints here) and failures.
namespace festina::simulator {

struct ServerlessLlmOptions {
  BatchLimits batch;
  bool migration = true;
  double target = 32;           // requests of an instance before the autoscaler wants another
  double keep_alive_s = 120;    // of a GPU without work
  double patience_ms = 60'000;  // others' wait after which an instance takes no new requests
  double kv_headroom =
      0.2;  // of declared loads' KV caches, kept free at the start: few run at once

  explicit ServerlessLlmOptions(Settings& from) {
    from.take("chunk_tokens", batch.tokens, 1);
    from.take("migration", migration);
    from.take("target", target, 1);
    from.take("keep_alive_s", keep_alive_s);
    from.take("patience_ms", patience_ms);
    from.take("kv_headroom", kv_headroom);
  }
};

class ServerlessLlm : public Policy {
 public:
  ServerlessLlm(const ServerlessLlmOptions& options, int gpus)
      : options_(options), planner_(options.migration), turns_(static_cast<std::size_t>(gpus)) {}

  void start(Cluster& c) override {
    queues_.resize(static_cast<std::size_t>(c.models()));
    constexpr double kPaceMs = 100;  // by which declared loads are compared
    preload_spread(c, options_.kv_headroom, kPaceMs);
  }

  void arrived(Cluster& c, int r) override {
    const int model = c.request(r).model;
    queues_[static_cast<std::size_t>(model)].push_back(r);
    flush(c, model);
    if (!queues_[static_cast<std::size_t>(model)].empty()) start_instances(c);
  }

  void dispatch(Cluster& c, Gpu& g) override {
    if (!g.awake()) return;
    Turn& turn = turns_[static_cast<std::size_t>(g.index)];
    if (turn.refuge != kNone) move_out(c, g, turn);
    if (turn.owner == kNone) return rest(c, g);
    Lane& l = c.lane(g, turn.owner);
    if (l.weights == Weights::absent && (turn.reserved || !l.empty())) fetch(c, g, turn.owner);
    if (l.weights != Weights::ready || l.busy) return;
    if (turn.reserved) return answer(c, g);
    free_memory(c, g, lacking_cache_bytes(c, g, l));
    if (start_iteration(c, g, l, options_.batch, c.full_rung())) return;
    if (!l.empty()) return;
    start_instances(c);
    rest(c, g);
  }

  void finished(Cluster& c, int r) override { flush(c, c.request(r).model); }

 private:
  Turn& turn(const Gpu& g) { return turns_[static_cast<std::size_t>(g.index)]; }

  // Router: queued requests of the model join its instances, the least loaded first.
  void flush(Cluster& c, int model) {
    auto& queue = queues_[static_cast<std::size_t>(model)];
    while (!queue.empty()) {
      Gpu* g = instance(c, model);
      if (g == nullptr) return;
      c.enqueue(*g, queue.front());
      queue.pop_front();
    }
  }

  // An instance below its target; above it only while no GPU is idle to start another on.
  Gpu* instance(Cluster& c, int model) {
    Gpu* best = nullptr;
    bool spare = false;
    for (int i = 0; i < c.gpus(); ++i) {
      Gpu& g = c.gpu(i);
      const Turn& t = turn(g);
      spare = spare || StartPlanner::idle(g, t);
      if ((t.refuge == kNone ? t.owner : t.next) != model) continue;
      if (best == nullptr || g.requests < best->requests) best = &g;
    }
    if (best == nullptr) return nullptr;
    if (best->requests >= static_cast<int>(options_.target) && spare) return nullptr;
    return impatient(c, model) ? nullptr : best;
  }

  // Another model has waited for a GPU for too long: instances drain, so that it gets its turn.
  bool impatient(const Cluster& c, int model) const {
    for (std::size_t m = 0; m < queues_.size(); ++m) {
      if (static_cast<int>(m) == model || queues_[m].empty()) continue;
      if (c.now_ms() - c.request(queues_[m].front()).sent_ms > options_.patience_ms) return true;
    }
    return false;
  }

  // Gives idle GPUs to the models that wait, the longest wait first.
  void start_instances(Cluster& c) {
    for (int model = longest_wait(c); model != kNone; model = longest_wait(c)) {
      const StartPlan plan = planner_.best(c, turns_, model);
      if (plan.gpu == kNone) return;
      take_turn(c, plan, model);
      auto& queue = queues_[static_cast<std::size_t>(model)];
      for (int taken = 0; taken < static_cast<int>(options_.target) && !queue.empty(); ++taken) {
        c.enqueue(c.gpu(plan.gpu), queue.front());
        queue.pop_front();
      }
      flush(c, model);
    }
  }

  int longest_wait(const Cluster& c) const {
    int best = kNone;
    double since_ms = kNever;
    for (std::size_t m = 0; m < queues_.size(); ++m) {
      if (queues_[m].empty()) continue;
      const double sent_ms = c.request(queues_[m].front()).sent_ms;
      if (sent_ms < since_ms) {
        since_ms = sent_ms;
        best = static_cast<int>(m);
      }
    }
    return best;
  }

  void take_turn(Cluster& c, const StartPlan& plan, int model) {
    Gpu& g = c.gpu(plan.gpu);
    Turn& t = turn(g);
    c.wake(g);
    if (plan.refuge == kNone) {
      t.owner = model;
      return c.touch(g);
    }
    Gpu& refuge = c.gpu(plan.refuge);
    turn(refuge).owner = t.owner;
    turn(refuge).reserved = true;
    t.refuge = plan.refuge;
    t.next = model;
    c.wake(refuge);
    c.touch(refuge);
  }

  // Loads the model's weights in place of ones that nobody uses.
  static void fetch(Cluster& c, Gpu& g, int model) {
    if (free_memory(c, g, c.weight_bytes(model))) c.load(g, model);
  }

  // A refuge is ready: the GPU it was made for can move its requests.
  void answer(Cluster& c, const Gpu& refuge) {
    for (int i = 0; i < c.gpus(); ++i) {
      if (turns_[static_cast<std::size_t>(i)].refuge == refuge.index) c.touch(c.gpu(i));
    }
  }

  // Once the refuge has the weights and no step runs: requests move, and the next model owns this
  // GPU. If all have ended meanwhile, it does at once.
  void move_out(Cluster& c, Gpu& g, Turn& t) {
    Lane& l = c.lane(g, t.owner);
    if (l.busy || l.incoming > 0) return;
    Gpu& refuge = c.gpu(t.refuge);
    const Lane* there = refuge.lane(t.owner);
    const bool ready = there != nullptr && there->weights == Weights::ready;
    if (!ready && !l.empty()) return;
    while (!l.running.empty()) c.migrate(l.running.front(), refuge);
    while (!l.waiting.empty()) {
      const int r = l.waiting.front();
      c.withdraw(r);
      c.enqueue(refuge, r);
    }
    turn(refuge).reserved = false;
    t.owner = t.next;
    t.refuge = t.next = kNone;
    c.touch(refuge);
  }

  // A GPU without work: after the keep-alive it holds nothing.
  void rest(Cluster& c, Gpu& g) {
    Turn& t = turn(g);
    if (!StartPlanner::idle(g, t) || g.requests > 0 || g.loads > 0 || g.moves > 0) return;
    double used_ms = 0;
    for (const auto& l : g.lanes) used_ms = std::max(used_ms, l->last_used_ms);
    const double until_ms = used_ms + options_.keep_alive_s * 1000.0;
    if (c.now_ms() < until_ms) return c.set_timer(g, until_ms);
    for (std::size_t i = g.lanes.size(); i-- > 0;) {
      if (g.lanes[i]->weights == Weights::ready) c.unload(g, g.lanes[i]->model);
    }
    t.owner = kNone;
    c.park(g);
  }

  ServerlessLlmOptions options_;
  StartPlanner planner_;
  std::vector<Turn> turns_;
  std::vector<std::deque<int>> queues_;  // by model: requests that no instance has taken
};

}  // namespace festina::simulator
