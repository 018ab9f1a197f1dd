#pragma once
#include <algorithm>
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "core/simulator/cluster.hpp"

// Aegaeon's prefill GPUs: grouped first come, first served (SOSP '25, section 4.2, algorithm 1).
namespace festina::simulator {

class AegaeonPrefill {
 public:
  AegaeonPrefill(int gpus, int group_max)
      : group_max_(group_max), queues_(static_cast<std::size_t>(gpus)) {}

  void use(int count) { count_ = count; }

  // Joins a group of its model that has room, wherever one is queued; else opens one on the GPU
  // with the least work, loads included.
  void arrived(Cluster& c, int r) {
    const int model = c.request(r).model;
    for (int i = 0; i < count_; ++i) {
      for (Group& group : queue(i)) {
        if (group.model != model || group.taken >= group_max_) continue;
        group.requests.push_back(r);
        ++group.taken;
        return c.enqueue(c.gpu(i), r);
      }
    }
    int best = 0;
    double least_ms = kNever;
    for (int i = 0; i < count_; ++i) {
      const Gpu& g = c.gpu(i);
      const double ms = load_ms(c, g, model);
      // Of GPUs that are as quick, the one whose next weights to go have been idle for longest.
      if (ms > least_ms || (ms == least_ms && stale_ms(c, g) >= stale_ms(c, c.gpu(best)))) continue;
      least_ms = ms;
      best = i;
    }
    queue(best).push_back({model, {r}, 1});
    c.enqueue(c.gpu(best), r);
  }

  // Starts the next prompt, one at a time and whole: the first group whose weights are there. The
  // weights of the first group that lacks them are fetched meanwhile. `held` tells whether the GPU
  // still keeps a cache of the model for a decode GPU that has no room.
  template <typename Held>
  void dispatch(Cluster& c, Gpu& g, const Held& held) {
    auto& groups = queue(g.index);
    if (g.steps.empty())
      std::erase_if(groups, [](const Group& group) { return group.requests.empty(); });
    prefetch(c, g, held);
    if (!g.steps.empty()) return;
    for (Group& group : groups) {
      Lane& l = c.lane(g, group.model);
      if (l.weights != Weights::ready) continue;
      const int r = group.requests.front();
      if (!c.has_room(g, r) && !make_room(c, g, c.expected_kv_bytes(r), group.model, held))
        continue;
      group.requests.pop_front();
      std::vector<Chunk> prompt{{r, c.request(r).uncached()}};
      return c.start(g, l, 0, std::move(prompt), c.full_rung());
    }
  }

  // Prompts that wait on a GPU, in the order in which they will run.
  template <typename Visit>
  void waiting(const Gpu& g, const Visit& visit) const {
    for (const Group& group : queues_[static_cast<std::size_t>(g.index)]) {
      for (const int r : group.requests) visit(r);
    }
  }

 private:
  struct Group {
    int model;
    std::deque<int> requests;
    int taken;  // requests that joined, those that have run included
  };
  std::deque<Group>& queue(int gpu) { return queues_[static_cast<std::size_t>(gpu)]; }

  // Until a new group of `model` would be through: prompts and loads ahead of it.
  double load_ms(const Cluster& c, const Gpu& g, int model) const {
    double ms = 0;
    const auto& groups = queues_[static_cast<std::size_t>(g.index)];
    for (const Group& group : groups) {
      if (absent(g, group.model)) ms += c.load_ms(group.model);
      for (const int r : group.requests) ms += prompt_ms(c, g, r);
    }
    for (const Step& s : g.steps) ms += std::max(0.0, s.start_ms + s.predicted_ms - c.now_ms());
    if (absent(g, model)) ms += c.load_ms(model);
    return ms;
  }
  // When the weights that would be unloaded next were last used.
  static double stale_ms(const Cluster& c, const Gpu& g) {
    double oldest_ms = c.now_ms();
    for (const auto& l : g.lanes) {
      if (l->weights == Weights::ready && l->empty()) {
        oldest_ms = std::min(oldest_ms, l->last_used_ms);
      }
    }
    return oldest_ms;
  }
  static bool absent(const Gpu& g, int model) {
    const Lane* l = g.lane(model);
    return l == nullptr || l->weights == Weights::absent;
  }
  static double prompt_ms(const Cluster& c, const Gpu& g, int r) {
    StepWork w;
    w.tokens = c.request(r).uncached();
    w.cached_mean = c.request(r).prompt_tokens() - w.tokens;
    return c.belief().step(c.request(r).model, w, c.full_rung(), g.clock).latency_ms;
  }

  template <typename Held>
  void prefetch(Cluster& c, Gpu& g, const Held& held) {
    if (g.loads > 0) return;
    for (const Group& group : queue(g.index)) {
      if (group.requests.empty() || !absent(g, group.model)) continue;
      if (make_room(c, g, c.weight_bytes(group.model), group.model, held)) c.load(g, group.model);
      return;
    }
  }

  // Unloads weights until `bytes` are free: first those that no group waits for, the longest unused
  // first, then those of the last groups, but never those of a group before `model`'s own.
  template <typename Held>
  bool make_room(Cluster& c, Gpu& g, double bytes, int model, const Held& held) {
    while (c.memory_free_bytes(g) < bytes) {
      const Lane* victim = nullptr;
      std::size_t victim_rank = 0;
      const std::size_t own_rank = rank(g, model);
      for (const auto& l : g.lanes) {
        if (l->weights != Weights::ready || l->busy || l->model == model) continue;
        if (held(g, l->model)) continue;
        const std::size_t place = rank(g, l->model);
        if (place < own_rank) continue;
        const bool better = victim == nullptr || place > victim_rank ||
                            (place == victim_rank && l->last_used_ms < victim->last_used_ms);
        if (!better) continue;
        victim = l.get();
        victim_rank = place;
      }
      if (victim == nullptr) return false;
      c.unload(g, victim->model);
    }
    return true;
  }
  // Place of the model's first group in the queue; beyond the last where it has none.
  std::size_t rank(const Gpu& g, int model) const {
    const auto& groups = queues_[static_cast<std::size_t>(g.index)];
    for (std::size_t i = 0; i < groups.size(); ++i) {
      if (groups[i].model == model && !groups[i].requests.empty()) return i;
    }
    return groups.size();
  }

  int group_max_;
  int count_ = 1;
  std::vector<std::deque<Group>> queues_;  // by GPU
};

}  // namespace festina::simulator
