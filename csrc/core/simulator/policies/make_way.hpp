#pragma once
#include <cstddef>
#include <vector>

#include "core/simulator/policies/residency.hpp"

// How idle weights make way for requests that wait on a GPU: for their own model's weights, and for
// their KV caches.
namespace festina::simulator {

inline double bytes_to_serve(const Cluster& c, int r) {
  return c.weight_bytes(c.request(r).model) + c.expected_kv_bytes(r);
}

// Weights that requests on this GPU wait for, in place of idle ones; where these are not enough the
// requests go where they are.
inline void load_wanted(Cluster& c, Gpu& g) {
  if (!g.awake()) return;
  for (std::size_t i = 0; i < g.lanes.size(); ++i) {
    const Lane& l = *g.lanes[i];
    if (l.weights != Weights::absent || l.waiting.empty()) continue;
    const double need = bytes_to_serve(c, l.waiting.front());
    if (free_memory(c, g, need)) {
      c.load(g, l.model);
    } else {
      const int other = cheapest_to_load(c, need);
      if (other == kNone) continue;
      const std::vector<int> moving(l.waiting.begin(), l.waiting.end());
      for (const int r : moving) {
        c.withdraw(r);
        c.enqueue(c.gpu(other), r);
      }
    }
    i = static_cast<std::size_t>(-1);  // unloading reorders lanes
  }
}

// Prompts that lack room for their KV cache are worth more than weights that nobody uses.
inline void make_room_for_caches(Cluster& c, Gpu& g) {
  for (const auto& l : g.lanes) {
    if (l->waiting.empty() || c.has_room(g, l->waiting.front())) continue;
    free_memory(c, g, c.expected_kv_bytes(l->waiting.front()));
    return;  // unloading reorders lanes
  }
}

}  // namespace festina::simulator
