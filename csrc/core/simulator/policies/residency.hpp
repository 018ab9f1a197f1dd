#pragma once
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <vector>

#include "core/simulator/cluster.hpp"

// Which weights lie where: what the policies share.
namespace festina::simulator {

// Time that one second of the model's declared load keeps a whole GPU busy at `clock`, decodes in
// batches as large as a pace of `tbt_ms` makes them.
inline double declared_share(const Cluster& c, int model, int clock, double tbt_ms) {
  const Hint& h = c.hint(model);
  const double batch = std::max(1.0, h.requests_per_s * h.output_tokens * tbt_ms / 1000.0);
  StepWork decode;
  decode.decodes = static_cast<int>(std::lround(batch));
  decode.context_mean = h.input_tokens + h.output_tokens / 2;
  StepWork prefill;
  prefill.tokens = std::max(1, static_cast<int>(h.input_tokens));
  const int rung = c.full_rung();
  const double steps_per_s = std::min(1000.0 / tbt_ms, h.requests_per_s * h.output_tokens);
  return (steps_per_s * c.belief().step(model, decode, rung, clock).latency_ms +
          h.requests_per_s * c.belief().step(model, prefill, rung, clock).latency_ms) /
         1000.0;
}

// Models in order of declared load, the heaviest first.
inline std::vector<int> by_load(const Cluster& c, int clock, double tbt_ms) {
  std::vector<double> share(static_cast<std::size_t>(c.models()));
  for (int m = 0; m < c.models(); ++m) {
    share[static_cast<std::size_t>(m)] = declared_share(c, m, clock, tbt_ms);
  }
  std::vector<int> order(share.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&share](int a, int b) {
    return share[static_cast<std::size_t>(a)] > share[static_cast<std::size_t>(b)];
  });
  return order;
}

// KV cache of the model's declared load when tokens are `tbt_ms` apart: as many requests as
// Little's law has in flight, half their output done (paper section 3.5).
inline double declared_kv_bytes(const Cluster& c, int model, double tbt_ms) {
  const Hint& h = c.hint(model);
  const double in_flight = h.requests_per_s * h.output_tokens * tbt_ms / 1000.0;
  return in_flight * c.kv_bytes(model, h.input_tokens + h.output_tokens / 2);
}

// Spreads weights over the GPUs, each model to the least loaded one that has room for it and
// `headroom` times the KV cache of its load. Models that fit nowhere stay away.
inline void preload_spread(Cluster& c, double headroom, double tbt_ms) {
  std::vector<double> load(static_cast<std::size_t>(c.gpus()), 0.0);
  std::vector<double> held(load.size(), 0.0);
  constexpr double kSpare = 0.03;  // of each GPU, for requests longer than the mean
  const double usable = c.device().memory_bytes * (1 - kSpare);
  for (const int m : by_load(c, c.top_clock(), tbt_ms)) {
    const double need = c.weight_bytes(m) + headroom * declared_kv_bytes(c, m, tbt_ms);
    int best = kNone;
    for (int i = 0; i < c.gpus(); ++i) {
      if (held[static_cast<std::size_t>(i)] + need > usable) continue;
      if (best == kNone ||
          load[static_cast<std::size_t>(i)] < load[static_cast<std::size_t>(best)]) {
        best = i;
      }
    }
    if (best == kNone) continue;
    c.preload(c.gpu(best), m);
    held[static_cast<std::size_t>(best)] += need;
    load[static_cast<std::size_t>(best)] += declared_share(c, m, c.top_clock(), tbt_ms);
  }
}

// Weights that nobody uses now.
inline bool evictable(const Lane& l) { return l.weights == Weights::ready && !l.busy && l.empty(); }
// Of idle weights, those that were used least recently go first.
inline bool leaves_before(const Lane* a, const Lane* b) {
  return a->last_used_ms != b->last_used_ms ? a->last_used_ms < b->last_used_ms
                                            : a->model < b->model;
}

// When the most recently used of the weights was used that would have to go for `bytes` to be free:
// 0 if none, kNever if even all idle weights are not enough.
inline double eviction_cost_ms(const Cluster& c, const Gpu& g, double bytes) {
  double lacking = bytes - c.memory_free_bytes(g);
  if (lacking <= 0) return 0;
  std::vector<const Lane*> idle;
  for (const auto& l : g.lanes) {
    if (evictable(*l)) idle.push_back(l.get());
  }
  std::sort(idle.begin(), idle.end(), leaves_before);
  for (const Lane* l : idle) {
    lacking -= c.weight_bytes(l->model);
    if (lacking <= 0) return l->last_used_ms + 1;
  }
  return kNever;
}

// Unloads the least recently used idle weights until `bytes` are free. False: not possible, and
// nothing was unloaded.
inline bool free_memory(Cluster& c, Gpu& g, double bytes) {
  if (eviction_cost_ms(c, g, bytes) == kNever) return false;
  while (c.memory_free_bytes(g) < bytes) {
    const Lane* oldest = nullptr;
    for (const auto& l : g.lanes) {
      if (!evictable(*l)) continue;
      if (oldest == nullptr || leaves_before(l.get(), oldest)) oldest = l.get();
    }
    c.unload(g, oldest->model);
  }
  return true;
}

// Memory that must be free for the cache of the lane's first prompt; 0: there is room.
inline double lacking_cache_bytes(const Cluster& c, const Gpu& g, const Lane& l) {
  if (l.waiting.empty() || c.admitted(l.waiting.front())) return 0;
  const double need = c.expected_kv_bytes(l.waiting.front());
  return c.memory_free_bytes(g) < need ? need : 0;
}

// Where weights that no GPU has are best loaded: where the weights that have to go were used least
// recently, then where the fewest requests are. kNone: nowhere is room.
inline int cheapest_to_load(Cluster& c, double bytes) {
  int best = kNone;
  double least_ms = kNever;
  for (int i = 0; i < c.gpus(); ++i) {
    const Gpu& g = c.gpu(i);
    const double cost_ms = eviction_cost_ms(c, g, bytes);
    if (cost_ms == kNever || !g.awake()) continue;
    if (cost_ms < least_ms || (cost_ms == least_ms && g.requests < c.gpu(best).requests)) {
      best = i;
      least_ms = cost_ms;
    }
  }
  return best;
}

// The GPU with the fewest requests.
inline int least_busy(Cluster& c) {
  int least = 0;
  for (int i = 1; i < c.gpus(); ++i) {
    if (c.gpu(i).requests < c.gpu(least).requests) least = i;
  }
  return least;
}

// The GPU that has the model's weights, or that they are on their way to, with the fewest
// requests; kNone: none has.
inline int holder(Cluster& c, int model) {
  int best = kNone;
  for (int i = 0; i < c.gpus(); ++i) {
    const Lane* l = c.gpu(i).lane(model);
    if (l == nullptr || l->weights == Weights::absent) continue;
    if (best == kNone || c.gpu(i).requests < c.gpu(best).requests) best = i;
  }
  return best;
}

}  // namespace festina::simulator
